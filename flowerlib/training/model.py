"""The network: a torchvision classifier or EfficientNet-Lite0, with pre-trained weights and a new head."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models
from torchvision.models import WeightsEnum, get_model, get_model_weights, list_models

from flowerlib.errors import LONGEST, UserError, one_line
from flowerlib.experiment import Experiment, did_you_mean
from flowerlib.files import is_printable
from flowerlib.runs import InputInfo, ModelInfo, WeightsInfo
from flowerlib.training import lite0
from flowerlib.training.weights_file import ALTERNATIVES, LITE0, weights_file

WITHOUT_DOWNLOAD = f"Use --set model={LITE0}: its ImageNet weights are installed with flowerlib. {ALTERNATIVES}"


@dataclass(frozen=True)
class Weights:
    """Initial weights.

    Attributes:
        info: for run.json: the source (``imagenet``: torchvision's IMAGENET1K_V1, or for EfficientNet-Lite0 the
            installed package's file, known by its hash; ``file`` or ``none``), and for a file its name, its SHA-256
            and what they were trained on, as the text beside it says (``resnet18.txt`` beside ``resnet18.pth``).
        state_dict: tensors by name; empty for ``none``.
    """

    info: WeightsInfo
    state_dict: dict[str, torch.Tensor]


def new_network(name: str, classes: int) -> nn.Module:
    """A network with random weights: torchvision's of that name, or EfficientNet-Lite0.

    Raises:
        ValueError: there is no such network.
    """
    return lite0.EfficientNetLite0(classes) if name == LITE0 else get_model(name, num_classes=classes)


def standardization(name: str) -> InputInfo:
    """Mean and standard deviation that the weights of a network expect its input to be standardized by."""
    return InputInfo(mean=(127 / 255,) * 3, std=(128 / 255,) * 3) if name == LITE0 else InputInfo()


def build_model(name: str, classes: int, weights: Weights, freeze: bool = False) -> nn.Module:
    """Build a classifier for ``classes`` classes with a new head; everything else comes from ``weights``.

    The head's random start comes from torch's global generator.

    Args:
        name: a torchvision classifier whose last layer is linear, or ``efficientnet_lite0``.
        classes: number of classes.
        weights: from `load_weights`; a head in them, of any width, is dropped.
        freeze: train the head only.

    Raises:
        UserError: there is no such network, it has no single linear head, or the weights belong to another network.
    """
    _refuse_unknown(name)
    model = new_network(name, 1000)
    head = find_head(model)
    if head is None or hasattr(model, "aux_logits"):
        raise UserError(f"{name} does not end in one linear layer that could be replaced. Try resnet18 or resnet34.")
    if weights.info.source != "none":
        backbone = {key: value for key, value in weights.state_dict.items() if not key.startswith(f"{head}.")}
        _load_backbone(model, backbone, head, name, weights.info.file)
    features = model.get_submodule(head).in_features
    model.requires_grad_(not freeze)
    model.set_submodule(head, nn.Linear(features, classes))
    return model


def find_head(model: nn.Module) -> str | None:
    """The name of a network's last linear layer, which is replaced by a new one; None if it has none."""
    return next(reversed([key for key, module in model.named_modules() if isinstance(module, nn.Linear)]), None)


def describe_model(model: nn.Module, image_size: int) -> ModelInfo:
    """Count a network's parameters, those that are trained, and the multiply-adds for one picture."""
    without_values = copy.deepcopy(model).to("meta").eval()  # operations are counted by shape, nothing is computed
    with FlopCounterMode(display=False) as counter:
        without_values(torch.empty(1, 3, image_size, image_size, device="meta"))
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return ModelInfo(
        parameters=sum(size for size, _ in sizes),
        trained=sum(size for size, trained in sizes if trained),
        multiply_adds=counter.get_total_flops() // 2,
    )


def set_training(model: nn.Module) -> None:
    """Switch to training mode, except for what is frozen: batch norm keeps its running means there."""
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def for_evaluation(model: nn.Module) -> nn.Module:
    """A network that computes the same faster: a ResNet's batch norm, folded into a copy of its convolutions.

    Other networks are returned as they are: not all of them can be traced.

    Source: PyTorch's `torch.fx.experimental.optimization.fuse`.
    """
    return fuse(model.eval()) if isinstance(model, models.ResNet) else model


def check_model(experiment: Experiment, classes: int, weights: Weights) -> nn.Module:
    """Build a session's network and run it on one picture.

    Returns:
        The network.

    Raises:
        UserError: the network can't be built, or can't take pictures of this size.
    """
    model = build_model(experiment.model, classes, weights, experiment.freeze).eval()
    side = experiment.image_size
    try:
        with torch.inference_mode():
            model(torch.zeros(1, 3, side, side))
    except (RuntimeError, AssertionError, ValueError) as error:  # vision transformers take one size only
        raise UserError(
            f"{experiment.model} can't take pictures of {side}×{side} pixels ({one_line(error)}). Try "
            "--set image_size=224."
        ) from error
    return model


def _refuse_unknown(name: str) -> None:
    # torchvision's classifiers, without its networks for detection, segmentation and video
    known = [*list_models(module=models), LITE0]
    if name not in known:
        raise UserError(
            f"model must be a torchvision classifier or {LITE0}, not '{one_line(name)}'.{did_you_mean(name, known)}"
        )


def _load_backbone(
    model: nn.Module, backbone: dict[str, torch.Tensor], head: str, name: str, file: str | None
) -> None:
    expected = {key: value.shape for key, value in model.state_dict().items() if not key.startswith(f"{head}.")}
    found = {key: value.shape for key, value in backbone.items()}
    wrong = [key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)]
    if wrong:
        raise UserError(
            f"The weights in {file} do not fit {name}: {len(wrong)} of its {len(expected)} tensors are "
            f"missing, unknown or of another shape, for example '{one_line(min(wrong))}'. {ALTERNATIVES}"
        )
    try:
        model.load_state_dict(backbone, strict=False)
    except RuntimeError as error:  # the right shape, but sparse, for example
        raise UserError(
            f"The weights in {file} can't be loaded into {name} ({one_line(error)}). {ALTERNATIVES}"
        ) from error


def load_weights(source: str, model: str) -> Weights:
    """Find and read the initial weights.

    Args:
        source: see `flowerlib.training.weights_file.weights_file`.
        model: the network's name.

    Raises:
        UserError: there is no such network, or its weights can't be found, downloaded or read.
    """
    _refuse_unknown(model)
    if source == "none":
        return Weights(WeightsInfo(source="none", file=None, sha256=None), {})
    path = weights_file(source, model)
    return _imagenet(model) if path is None else _read_file(path, model)


def megabytes_to_fetch(source: str, model: str) -> float:
    """How much `load_weights` would download.

    Raises:
        UserError: there is no such network.
    """
    _refuse_unknown(model)
    if source == "none" or weights_file(source, model):
        return 0
    return 0 if _imagenet_path(model).exists() else _imagenet_weights(model).meta["_file_size"]


def _imagenet(model: str) -> Weights:
    url, path = _imagenet_url(model), _imagenet_path(model)
    try:
        torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except Exception as error:  # of the network or the disk; on a damaged file PyTorch raises nearly anything
        raise UserError(
            f"ImageNet's weights for {model} could not be downloaded from {url} ({one_line(error)}). "
            f"{WITHOUT_DOWNLOAD}"
        ) from error
    return _read_file(path, model)


def _imagenet_path(model: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / _imagenet_url(model).rsplit("/", 1)[1]


def _imagenet_url(model: str) -> str:
    return _imagenet_weights(model).url


def _imagenet_weights(model: str) -> WeightsEnum:
    known = get_model_weights(model)
    return getattr(known, "IMAGENET1K_V1", known.DEFAULT)  # a few networks have later versions only


def _imagenet_hash(model: str) -> str:
    """How the SHA-256 of a network's ImageNet weights begins: in torchvision, its files are named for it."""
    return lite0.WEIGHTS_HASH if model == LITE0 else _imagenet_url(model).removesuffix(".pth").rsplit("-", 1)[1]


def _read_file(path: Path, model: str) -> Weights:
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        state_dict = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on a damaged file PyTorch's reader raises nearly anything
        raise UserError(
            f"The weights file {path} can't be read as a PyTorch state_dict ({one_line(error)}). {ALTERNATIVES}"
        ) from error
    if not isinstance(state_dict, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state_dict.items()
    ):
        raise UserError(f"The weights file {path} is not a state_dict: names with a tensor each. {ALTERNATIVES}")
    genuine = digest.startswith(_imagenet_hash(model))
    source, trained_on = ("imagenet", "ImageNet") if genuine else ("file", _trained_on(path.with_suffix(".txt")))
    if model == LITE0:
        state_dict = lite0.rename(state_dict)
    return Weights(WeightsInfo(source=source, file=path.name, sha256=digest, trained_on=trained_on), state_dict)


def _trained_on(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="utf-8-sig").strip().removesuffix(".")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}, which describes the weights, can't be read ({one_line(error)}). Correct or remove it."
        ) from error
    if not is_printable(text) or not 0 < len(text) <= LONGEST:
        raise UserError(
            f"{path} must say in one line of at most {LONGEST} characters what the weights were trained on. Correct "
            "or remove it."
        )
    return text
