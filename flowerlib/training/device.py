"""Where a session computes: device, precision, reproducibility, and how much memory it took."""

from __future__ import annotations

import os
import platform
import sys

import torch

from flowerlib.errors import UserError
from flowerlib.runs import Device


def pick_device(name: str) -> torch.device:
    """The device for a setting; ``auto`` takes CUDA, then Apple's GPU, then the CPU.

    Raises:
        UserError: the device is not available.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, found in available.items() if found)
    if not available[name]:
        raise UserError(f"This machine, or this build of PyTorch, has no device '{name}'. Use --set device=auto.")
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> str:
    """The precision for a setting: ``float32``, or ``bfloat16`` for mixed precision.

    ``auto`` takes bfloat16 where the hardware multiplies it: elsewhere it is emulated, which is slow.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        fast = device.type == "cpu" and any(capabilities.get(unit) for unit in ("avx512_bf16", "amx_bf16"))
    return "bfloat16" if fast else "float32"


def make_reproducible(device: torch.device) -> None:
    """Let a GPU compute the same from the same, and float32 in float32, not TF32, for the rest of this process.

    On the CPU, PyTorch does so anyway as long as the number of threads is the same. An operation that has no
    deterministic algorithm warns. CUDA's libraries read the workspace's size when they start.
    """
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # costs time, and nothing here reads such memory
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def describe_device(device: torch.device) -> Device:
    """The device's kind and name, the number of CPU threads, the operating system, and a GPU's kind of algorithms."""
    cpu = torch.cpu.get_capabilities().get("cpu_name") or platform.machine()
    is_gpu = device.type == "cuda"
    return Device(
        type=device.type,
        name=torch.cuda.get_device_name(device) if is_gpu else cpu,
        threads=torch.get_num_threads(),
        system=platform.system(),
        deterministic=torch.are_deterministic_algorithms_enabled() if is_gpu else None,
    )


def mixed_precision(device: torch.device, precision: str) -> torch.autocast:
    """Autocast to ``precision``; weights and their updates stay float32.

    The context keeps bfloat16 copies of the weights until it ends: in training it must end before the optimizer's
    step.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def peak_memory() -> float | None:
    """The most memory that this process has held, in MiB; None on Windows, which doesn't count it."""
    if sys.platform == "win32":
        return None
    import resource  # which Windows lacks

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
