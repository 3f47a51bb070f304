"""A trained network: read from a checkpoint, and where in a picture it looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import interpolate
from torchvision.models import ResNet

from flowerlib.errors import UserError, one_line
from flowerlib.runs import LAST, InputInfo, Run, read_info
from flowerlib.training.augment import normalize
from flowerlib.training.checkpoint import read_checkpoint
from flowerlib.training.device import make_reproducible, mixed_precision, pick_device
from flowerlib.training.lite0 import EfficientNetLite0
from flowerlib.training.model import for_evaluation, new_network


@dataclass(frozen=True)
class Trained:
    """A network and what using it takes.

    Attributes:
        network: in evaluation mode.
        classes: names, in the order of the network's outputs.
        image_size: side of its input, in pixels.
        standardization: mean and standard deviation of its input.
        precision: in which it is computed, ``float32`` or ``bfloat16``.
        temperature: divides its logits.
        unsure_below: an answer whose highest probability is lower is unsure.
    """

    network: nn.Module
    classes: list[str]
    image_size: int
    standardization: InputInfo
    precision: str = "float32"
    temperature: float = 1.0
    unsure_below: float = 0.0

    @cached_property
    def evaluated(self) -> nn.Module:
        """The network as a session evaluates it."""
        return for_evaluation(self.network)


def read_trained(path: Path) -> Trained:
    """Read a best.pt, or a last.pt with run.json beside it, to the device that a session would take.

    Raises:
        UserError: it can't be read, or is another kind of file.
    """
    checkpoint = read_checkpoint(path)
    is_last = isinstance(checkpoint, dict) and "optimizer" in checkpoint
    trained = _last(path, checkpoint) if is_last else _best(path, checkpoint)
    device = pick_device("auto")
    make_reproducible(device)
    trained.network.to(device, memory_format=torch.channels_last)
    return trained


def read_best(path: Path) -> Trained:
    """Read a best.pt to the CPU.

    Raises:
        UserError: it can't be read, or is another kind of file.
    """
    return _best(path, read_checkpoint(path))


def _best(path: Path, checkpoint: dict[str, Any]) -> Trained:
    try:
        network = new_network(checkpoint["model"], len(checkpoint["classes"]))
        network.load_state_dict(checkpoint["state_dict"])
        recorded = {key: tuple(checkpoint[key]) for key in ("mean", "std") if key in checkpoint}  # else ImageNet's
        calibration = {key: checkpoint[key] for key in ("temperature", "unsure_below") if key in checkpoint}
        return Trained(
            network.eval(),
            list(checkpoint["classes"]),
            int(checkpoint["image_size"]),
            InputInfo(**recorded),
            **calibration,
        )
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else one_line(error)
        raise UserError(f"{path} is not the best.pt of a session ({reason}). Name that file.") from error


def _last(path: Path, checkpoint: dict[str, Any]) -> Trained:
    info = read_info(path.parent)
    if info is None:
        raise UserError(f"The run.json beside {path} is missing, which names the classes. Name a best.pt instead.")
    classes = list(info.dataset.classes)
    try:
        network = new_network(info.settings.model, len(classes))
        network.load_state_dict(checkpoint["model"])
        return Trained(network.eval(), classes, info.settings.image_size, info.input, checkpoint["precision"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"{path} doesn't hold the network of the run.json beside it ({one_line(error)}).") from error


@torch.inference_mode()
def logits(trained: Trained, views: np.ndarray) -> np.ndarray:
    """The network's logits, float32 (n, classes), for views, uint8 (n, size, size, 3): as a session computes them."""
    device = next(trained.network.parameters()).device
    with mixed_precision(device, trained.precision):
        images = normalize(torch.from_numpy(views).to(device), trained.standardization)
        return trained.evaluated(images).float().cpu().numpy()


def load_network(run: Run) -> nn.Module:
    """The network after a run's last epoch, which wrote predictions.csv: on the CPU, in evaluation mode.

    Raises:
        UserError: last.pt is missing or damaged, or belongs to other predictions.
    """
    path = run.folder / LAST
    checkpoint = read_checkpoint(path)
    probabilities = torch.from_numpy(run.predictions[run.classes].to_numpy(np.float32))
    try:
        network = new_network(run.info.settings.model, len(run.classes))
        network.load_state_dict(checkpoint["model"])
        if not torch.allclose(checkpoint["logits"].softmax(dim=1), probabilities, atol=1e-4):
            raise ValueError("predictions.csv belongs to another epoch or run")
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"{path} doesn't hold the network of {run.name} ({one_line(error)}).") from error
    return network.eval()


def last_feature_layer(network: nn.Module) -> nn.Module | None:
    """The module that outputs a network's last feature maps; None except for ResNets and EfficientNet-Lite0.

    Other networks have none (vision transformers), or no name in common by which it could be found.
    """
    if isinstance(network, ResNet):
        return network.layer4
    return network.act2 if isinstance(network, EfficientNetLite0) else None


def grad_cam(
    network: nn.Module, layer: nn.Module, views: np.ndarray, targets: Sequence[int], standardization: InputInfo
) -> np.ndarray:
    """How strongly each place in a picture speaks for a class: Grad-CAM.

    Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization"
    (2017); computed by Captum.

    Args:
        network: in evaluation mode.
        layer: a module of it that outputs feature maps, (n, channels, height, width).
        views: uint8 (n, size, size, 3), as `flowerlib.data.crop.centre_crop` makes them.
        targets: n class indices.
        standardization: of the network's input.

    Returns:
        float32 (n, size, size): 1 at each picture's strongest place, 0 where nothing speaks for the class.
    """
    from captum.attr import LayerGradCam  # it takes a second, which answers alone should not cost

    device = next(network.parameters()).device
    inputs = normalize(torch.from_numpy(views).to(device), standardization)
    maps = LayerGradCam(network, layer).attribute(
        inputs, target=torch.tensor(targets, device=device), relu_attributions=True
    )
    maps = interpolate(maps.detach(), size=inputs.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    strongest = maps.amax(dim=(1, 2), keepdim=True)
    return (maps / strongest.where(strongest > 0, 1)).cpu().numpy()
