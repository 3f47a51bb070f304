"""What a session will be, known before it begins: whatever can be known to fail fails here."""

from __future__ import annotations

from flowerlib.data.photos import PhotoSet
from flowerlib.data.split import split_photos
from flowerlib.experiment import Experiment
from flowerlib.runs import RunInfo
from flowerlib.training.checkpoint import space_needed
from flowerlib.training.device import pick_device, pick_precision
from flowerlib.training.model import check_model, load_weights
from flowerlib.training.provenance import describe_run


def plan_run(experiment: Experiment, photos: PhotoSet) -> tuple[RunInfo, int]:
    """The run.json with which a session begins, and how many bytes its checkpoints take.

    Raises:
        UserError: the weights, the network or the device can't be used.
    """
    device = pick_device(experiment.device)
    weights = load_weights(experiment.weights, experiment.model)
    model = check_model(experiment, len(photos.classes), weights)
    precision = pick_precision(experiment.precision, device)
    info = describe_run(experiment, photos, split_photos(photos, experiment), weights, model, device, precision)
    return info, space_needed(model)
