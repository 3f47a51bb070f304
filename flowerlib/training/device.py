"""Where a session computes: device, precision, and the memory that a step needs again and again."""

from __future__ import annotations

import ctypes
import platform
import sys

import torch

from flowerlib.errors import UserError
from flowerlib.runs import Device

# in glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def pick_device(name: str) -> torch.device:
    """The device that a setting means; ``auto`` takes CUDA, then Apple's GPU, then the CPU.

    Raises:
        UserError: the device is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, available in there.items() if available)
    if not there[name]:
        raise UserError(f"This machine, or this build of PyTorch, has no device '{name}'. Use --set device=auto.")
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> str:
    """The precision that a setting means, ``float32`` or ``bfloat16``.

    ``auto`` takes bfloat16 where the processor multiplies it in hardware: elsewhere it is emulated, and slow.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        there = torch.cpu.get_capabilities()
        fast = device.type == "cpu" and any(there.get(unit) for unit in ("avx512_bf16", "amx_bf16"))
    return "bfloat16" if fast else "float32"


def describe_device(device: torch.device) -> Device:
    """The device's kind and name, the number of CPU threads, and the operating system."""
    cpu = torch.cpu.get_capabilities().get("cpu_name") or platform.machine()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu
    return Device(type=device.type, name=name, threads=torch.get_num_threads(), system=platform.system())


def mixed_precision(device: torch.device, precision: str) -> torch.autocast:
    """A context in which products are taken in ``precision``; weights and their updates stay float32.

    It keeps the weights' bfloat16 copies until it ends: in training it must end before the optimizer's step.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def keep_freed_memory() -> None:
    """Let the C library keep large freed blocks for the next step, rather than give them back to the system.

    A training step on the CPU frees and takes hundreds of megabytes of activations, and by default every page of
    them is mapped and zeroed anew: without that, a step of ResNet-18 ran 57 photos a second
    on two cores, not 50. Does nothing where the C library is not glibc.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
