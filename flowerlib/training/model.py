"""The network: a torchvision classifier with pre-trained weights and a new head."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torchvision import models
from torchvision.models import get_model, get_model_weights, list_models

from flowerlib.errors import LONGEST, UserError, brief
from flowerlib.experiment import Experiment, did_you_mean
from flowerlib.files import is_text
from flowerlib.runs import WeightsInfo

WAYS_OUT = (
    "Name a local file or folder with --weights (or FLOWERLIB_WEIGHTS), or start from random weights with "
    "--weights none."
)


@dataclass(frozen=True)
class Weights:
    """Initial weights.

    Attributes:
        info: for run.json: source (``imagenet`` means torchvision's IMAGENET1K_V1, hash checked; ``file`` or
            ``none``), and for a file its name, its SHA-256 and what the text beside it (``resnet18.txt`` beside
            ``resnet18.pth``) says they were trained on.
        state_dict: tensors by name; empty for ``none``.
    """

    info: WeightsInfo
    state_dict: dict[str, torch.Tensor]


def build_model(name: str, classes: int, weights: Weights, freeze: bool = False) -> nn.Module:
    """Build a classifier for ``classes`` classes; the head is new, all else comes from ``weights``.

    The head's random start comes from torch's global generator.

    Args:
        name: a torchvision classifier whose last layer is linear.
        classes: number of classes.
        weights: from `load_weights`; a head of any width in them is dropped.
        freeze: only the head is to be trained.

    Raises:
        UserError: there is no such network, it has no single linear head, or the weights are another network's.
    """
    _refuse_unknown(name)
    model = get_model(name, weights=None)
    linear = [key for key, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear or hasattr(model, "aux_logits"):
        raise UserError(f"{name} does not end in one linear layer that could be replaced. Try resnet18 or resnet34.")
    head = linear[-1]
    if weights.info.source != "none":
        backbone = {key: value for key, value in weights.state_dict.items() if not key.startswith(f"{head}.")}
        _load_backbone(model, backbone, head, name, weights.info.file)
    features = model.get_submodule(head).in_features
    model.requires_grad_(not freeze)
    model.set_submodule(head, nn.Linear(features, classes))
    return model


def set_training(model: nn.Module) -> None:
    """Training mode, except for what is frozen: its batch norm keeps to the means that it has learned."""
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def check_model(experiment: Experiment, classes: int, weights: Weights) -> nn.Module:
    """Build a session's network and send one picture through it.

    Returns:
        The network.

    Raises:
        UserError: the network can't be built, or can't take pictures of this size.
    """
    model = build_model(experiment.model, classes, weights).eval()
    side = experiment.image_size
    try:
        with torch.inference_mode():
            model(torch.zeros(1, 3, side, side))
    except (RuntimeError, AssertionError, ValueError) as error:  # vision transformers take one size only
        raise UserError(
            f"{experiment.model} can't take pictures of {side}×{side} pixels ({brief(error)}). Try "
            "--set image_size=224."
        ) from error
    return model


def _refuse_unknown(name: str) -> None:
    known = list_models(module=models)  # its classifiers, without detection, segmentation and video
    if name not in known:
        raise UserError(f"model must be a torchvision classifier, not '{brief(name)}'.{did_you_mean(name, known)}")


def _load_backbone(
    model: nn.Module, backbone: dict[str, torch.Tensor], head: str, name: str, file: str | None
) -> None:
    expected = {key: value.shape for key, value in model.state_dict().items() if not key.startswith(f"{head}.")}
    found = {key: value.shape for key, value in backbone.items()}
    wrong = [key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)]
    if wrong:
        raise UserError(
            f"The weights file {file} is not of a {name}: {len(wrong)} of {len(expected)} tensors are "
            f"missing, unknown or of another shape, for example '{brief(min(wrong))}'. {WAYS_OUT}"
        )
    try:
        model.load_state_dict(backbone, strict=False)
    except RuntimeError as error:  # of the right shape, but sparse, say
        raise UserError(f"The weights of {file} can't be put into a {name} ({brief(error)}). {WAYS_OUT}") from error


def load_weights(source: str, model: str) -> Weights:
    """Find and read the initial weights.

    Args:
        source: ``none``; ``imagenet``: a file of FLOWERLIB_WEIGHTS where that is set, else torchvision's
            download; or a state_dict file, or a folder of ``<model>.pth``.
        model: the network's name.

    Raises:
        UserError: there is no such network, or its weights can't be found, downloaded or read.
    """
    _refuse_unknown(model)
    if source == "none":
        return Weights(WeightsInfo(source="none", file=None, sha256=None), {})
    folder = os.environ.get("FLOWERLIB_WEIGHTS")
    if source == "imagenet" and not folder:
        return _imagenet(model)
    path = os.path.expanduser(folder if source == "imagenet" else source)
    return _read_file(_weights_file(Path(path), model), model)


def _imagenet(model: str) -> Weights:
    url = _imagenet_url(model)
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    try:
        torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except Exception as error:  # of the network, of the disk, or PyTorch's nearly any of a damaged file
        raise UserError(
            f"ImageNet's weights of {model} could not be downloaded from {url} ({brief(error)}). {WAYS_OUT}"
        ) from error
    return _read_file(path, model)


def _imagenet_url(model: str) -> str:
    known = get_model_weights(model)
    return getattr(known, "IMAGENET1K_V1", known.DEFAULT).url  # a few networks have only later ones


def _weights_file(path: Path, model: str) -> Path:
    # unlike pathlib's, these two take a path that is too long, or may not be read, for one that isn't there
    file = path / f"{model}.pth" if os.path.isdir(path) else path
    if not os.path.isfile(file):
        raise UserError(f"There is no weights file {file}. {WAYS_OUT}")
    return file


def _read_file(path: Path, model: str) -> Weights:
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        state_dict = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on a damaged file PyTorch's reader raises nearly anything
        raise UserError(
            f"The weights file {path} can't be read as a PyTorch state_dict ({brief(error)}). {WAYS_OUT}"
        ) from error
    if not isinstance(state_dict, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state_dict.items()
    ):
        raise UserError(f"The weights file {path} is no state_dict of tensors by name. {WAYS_OUT}")
    # torchvision's file names end in the first eight digits of the file's hash: resnet18-f37072fd.pth
    genuine = digest.startswith(_imagenet_url(model).removesuffix(".pth").rsplit("-", 1)[1])
    source, trained_on = ("imagenet", "ImageNet") if genuine else ("file", _trained_on(path.with_suffix(".txt")))
    return Weights(WeightsInfo(source=source, file=path.name, sha256=digest, trained_on=trained_on), state_dict)


def _trained_on(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="utf-8-sig").strip().removesuffix(".")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"What {path} says of the weights can't be read ({brief(error)}). Mend or remove it."
        ) from error
    if not is_text(text) or not 0 < len(text) <= LONGEST:
        raise UserError(
            f"{path} must say in one line, of {LONGEST} characters at most, what the weights were trained on. Mend "
            "or remove it."
        )
    return text
