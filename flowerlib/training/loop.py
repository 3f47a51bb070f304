"""The training loop: one session, from initial weights to tables and checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, softmax
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

from flowerlib.calibration import calibrate
from flowerlib.data.photos import PhotoSet
from flowerlib.data.split import split_photos
from flowerlib.errors import UserError
from flowerlib.experiment import Experiment
from flowerlib.files import check_space, locked, make_folder
from flowerlib.progress import counted, progress_bar
from flowerlib.runs import (
    BEST,
    EpochMetrics,
    HeldOutInfo,
    InputInfo,
    Run,
    RunInfo,
    is_unequal,
    is_up_to_date,
    read_info,
    read_run,
    refuse_other_inputs,
    write_augmented,
    write_info,
    write_metrics,
    write_predictions,
    write_repeats,
)
from flowerlib.training.augment import normalize
from flowerlib.training.checkpoint import (
    Progress,
    read_calibration,
    read_checkpoint,
    read_last,
    space_needed,
    write_best,
    write_last,
)
from flowerlib.training.device import make_reproducible, mixed_precision, peak_memory, pick_device, pick_precision
from flowerlib.training.forecast import with_forecast
from flowerlib.training.gpu_loader import pick_loader
from flowerlib.training.loader import Batch, Loader
from flowerlib.training.model import build_model, for_evaluation, load_weights, set_training
from flowerlib.training.provenance import describe_run

DROPOUT_STREAM = 2  # part of the key of dropout's seed; see flowerlib.training.loader.ORDER_STREAM


@dataclass(frozen=True)
class Computation:
    """How a network is computed.

    Attributes:
        device: where; the network must be there.
        precision: ``bfloat16`` for mixed precision, or ``float32``.
        standardization: mean and standard deviation of the network's input.
    """

    device: torch.device
    precision: str
    standardization: InputInfo


def train_and_evaluate(experiment: Experiment, photos: PhotoSet, run_dir: Path) -> Run:
    """Train one session, or resume it where it stopped, and write its tables to ``run_dir``.

    Each epoch trains on the augmented training photos (paper, section 3), then evaluates the validation
    photos twice: clean, and augmented as in the paper. Every random draw depends on nothing but the seed, and
    some on the epoch and the photo, so that a checkpoint needs no generator state.

    Args:
        experiment: the settings.
        photos: the data set.
        run_dir: gets metrics.csv, predictions.csv, repeats.csv, augmented.csv, run.json, last.pt and best.pt.

    Returns:
        The run's tables, as written.

    Raises:
        UserError: weights, device or folder can't be used, ``run_dir`` holds a run of other inputs, another process
            is at work in it, or the loss is no longer finite.
    """
    with locked(make_folder(run_dir) / ".lock", run_dir):
        for leftover in run_dir.glob(".*.part"):  # from a process that was killed
            leftover.unlink()
        try:
            return _train_and_evaluate(experiment, photos, run_dir)
        except RuntimeError as error:  # OutOfMemoryError, or CUDA's own where other programs have filled the card
            if "out of memory" not in str(error):
                raise
        # not within the except clause: the error holds the tensors, and a notebook keeps an error's causes
        raise UserError(
            "The GPU's memory is too small for these settings, or other programs use it. Close those and run the "
            "same command again, or add device=cpu: both resume. Or begin again with a smaller batch_size or "
            "image_size, with --force or as another session."
        )


def _train_and_evaluate(experiment: Experiment, photos: PhotoSet, run_dir: Path) -> Run:
    device = pick_device(experiment.device)
    make_reproducible(device)
    precision = pick_precision(experiment.precision, device)
    weights = load_weights(experiment.weights, experiment.model)
    indices = split_photos(photos, experiment)
    loader = pick_loader(experiment, photos, device)

    torch.manual_seed(experiment.seed)
    model = build_model(experiment.model, len(photos.classes), weights, experiment.freeze)
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = SGD(model.parameters(), lr=experiment.learning_rate, momentum=experiment.momentum)
    scheduler = StepLR(optimizer, step_size=experiment.lr_step, gamma=experiment.lr_factor)

    info = describe_run(experiment, photos, indices, weights, model, device, precision)
    refuse_other_inputs(run_dir, info)
    progress = read_last(run_dir, info, model, optimizer, scheduler)
    if is_up_to_date(run_dir, experiment):
        print(f"Nothing to train: {run_dir} holds a finished session of these settings.")
        return read_run(run_dir)
    info = _begin(run_dir, info, progress, model)
    history, logits = progress.history, progress.logits
    computation = Computation(device, info.precision, info.input)
    class_weights = None
    if experiment.class_weights == "balanced":
        class_weights = balanced_weights(photos.labels[indices.train], len(photos.classes)).to(device)
    write_info(run_dir, info)
    write_metrics(run_dir / "metrics.csv", history)  # it may be lost, or ahead of an older checkpoint

    first = len(history)
    for epoch in range(first, experiment.epochs):
        learning_rate = scheduler.get_last_lr()[0]
        torch.manual_seed(dropout_seed(experiment.seed, epoch))
        try:
            photos_seen = len(indices.train) + 2 * len(indices.validation)
            with progress_bar(desc=f"epoch {epoch}", total=photos_seen, unit="photo") as bar:
                batches = loader.training(indices.train, epoch)
                if epoch == first and device.type == "cpu":
                    batches = with_forecast(batches, experiment, indices, experiment.epochs - first)
                begun = perf_counter()
                train_loss, train_acc = train_epoch(
                    model, optimizer, counted(batches, bar), computation, class_weights
                )
                trained = perf_counter()
                network = for_evaluation(model)
                logits, labels = predict(network, counted(loader.clean(indices.validation), bar), computation)
                augmented = predict(network, counted(loader.augmented(indices.validation, epoch), bar), computation)
                evaluated = perf_counter()
            val_loss, val_acc = score(logits, labels)
            val_aug_loss, val_aug_acc = score(*augmented)
        except FloatingPointError as error:
            raise UserError(
                f"Training has failed in epoch {epoch}: {error}, at learning rate {learning_rate:g}. The "
                "epochs before it are kept. Begin again with a smaller learning_rate or in float32: with --force, or "
                "as another session."
            ) from error

        row = EpochMetrics(
            epoch=epoch,
            learning_rate=learning_rate,
            train_loss=train_loss,
            train_acc=train_acc,
            val_loss=val_loss,
            val_acc=val_acc,
            val_aug_loss=val_aug_loss,
            val_aug_acc=val_aug_acc,
            train_seconds=trained - begun,
            val_seconds=evaluated - trained,
        )
        scheduler.step()
        if row.val_acc > max((earlier.val_acc for earlier in history), default=-1.0):
            write_best(run_dir, info, model, calibrate(logits.numpy(), labels.numpy()))
        history.append(row)
        write_metrics(run_dir / "metrics.csv", history)
        write_last(run_dir, info, model, optimizer, scheduler, history, logits)
        by_class = class_line(logits, labels, info) if is_unequal(info.dataset.classes) else ""
        print(epoch_line(row, experiment.epochs) + by_class, flush=True)  # printed only once it is saved

    names, labels = [photos.paths[index] for index in indices.validation], photos.labels[indices.validation]
    write_predictions(run_dir / "predictions.csv", names, labels, softmax(logits, dim=1).numpy(), photos.classes)
    repeats, correct = evaluate_repeatedly(for_evaluation(model), loader, indices.validation, computation)
    write_repeats(run_dir / "repeats.csv", repeats)
    write_augmented(run_dir / "augmented.csv", names, correct)
    if len(indices.test) and info.test is None:
        test = score_best(run_dir, model, loader.clean(indices.test), computation)
        info = info.model_copy(update={"test": test})
        print(f"test: best.pt is right on {test.correct:,} of {test.photos:,} photos set aside for the test")
    calibration = read_calibration(run_dir) or info.calibration
    update = {"finished": True, "calibration": calibration, "peak_memory": peak_memory()}
    write_info(run_dir, info.model_copy(update=update))
    return read_run(run_dir)


def _begin(run_dir: Path, info: RunInfo, progress: Progress, model: nn.Module) -> RunInfo:
    """run.json for a session that begins, or resumes in the precision of its checkpoint.

    Raises:
        UserError: the folder's run has more epochs than were asked for, has lost its checkpoints, or has no room.
    """
    before, epochs = read_info(run_dir), info.settings.epochs
    finished = before is not None and before.finished
    if len(progress.history) > epochs:
        raise UserError(
            f"{run_dir} holds {len(progress.history)} epochs, more than the {epochs} asked for. Begin again with "
            "--force, or choose another folder with --runs; in a notebook, another session or run_dir."
        )
    if finished and not progress.history:
        raise UserError(
            f"{run_dir} holds a finished run without its checkpoints. Choose another folder, or begin again with "
            "--force."
        )
    if not progress.history:
        check_space(run_dir, space_needed(model))
        return info
    if finished and len(progress.history) == epochs:  # tables are missing, or repeats: nothing is trained here
        return before.model_copy(update={"settings": info.settings, "finished": False})
    return info.model_copy(update={"earlier": progress.earlier, "precision": progress.precision})


def dropout_seed(seed: int, epoch: int) -> int:
    """The seed of torch's own generator in an epoch: it draws dropout, in networks that have it, and nothing else.

    On the CPU, torch uses the low 32 bits of a seed only: here they depend on all of (seed, epoch).
    """
    key = np.random.SeedSequence((seed, epoch, 0, DROPOUT_STREAM))
    return int(key.generate_state(1, np.uint64)[0])


def evaluate_repeatedly(
    model: nn.Module, loader: Loader, validation: np.ndarray, computation: Computation
) -> tuple[list[float], np.ndarray]:
    """Evaluate the last network on the validation photos, newly augmented each time, as often as the settings say.

    Returns:
        The accuracy of each evaluation, and in how many of them each photo was right: int64 (n,).
    """
    accuracies, correct = [], np.zeros(len(validation), np.int64)
    experiment = loader.experiment
    with progress_bar(desc="repeats", total=experiment.repeats * len(validation), unit="photo") as bar:
        for number in range(experiment.repeats):
            views = loader.augmented(validation, experiment.epochs + number)
            logits, labels = predict(model, counted(views, bar), computation)
            accuracies.append(score(logits, labels)[1])
            correct += (logits.argmax(dim=1) == labels).numpy()
    return accuracies, correct


def balanced_weights(labels: np.ndarray, classes: int) -> torch.Tensor:
    """A weight for each class, float32 (classes,), by which all count the same: n / (classes · its photos)."""
    photos = np.bincount(labels, minlength=classes)
    return torch.from_numpy(len(labels) / (classes * photos.clip(min=1))).float()


def score_best(run_dir: Path, model: nn.Module, batches: Iterable[Batch], computation: Computation) -> HeldOutInfo:
    """Load best.pt into the model, and score it on the photos set aside for the test."""
    model.load_state_dict(read_checkpoint(run_dir / BEST)["state_dict"])
    logits, labels = predict(for_evaluation(model), batches, computation)
    loss, _ = score(logits, labels)
    return HeldOutInfo(photos=len(labels), correct=(logits.argmax(dim=1) == labels).sum().item(), loss=loss)


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Batch],
    computation: Computation,
    class_weights: torch.Tensor | None = None,
) -> tuple[float, float]:
    """One pass of gradient steps; mean loss and accuracy of the network as it changes.

    Args:
        model: the network.
        optimizer: updates its parameters.
        batches: uint8 images (n, size, size, 3) and int64 labels (n,), on the device.
        computation: device, precision and input standardization.
        class_weights: what each class counts in the loss, float32 (classes,), on the device; None: all the same.

    Returns:
        Mean cross-entropy, weighted if asked, and accuracy over all photos; exact, also with a short last batch.

    Raises:
        FloatingPointError: a batch's loss is not finite. This is noticed when the pass is over: asking after each
            batch would make a GPU wait.
    """
    set_training(model)
    losses, sizes, correct = [], [], torch.zeros((), device=computation.device)
    for images, labels in batches:
        with mixed_precision(computation.device, computation.precision):
            logits = model(normalize(images, computation.standardization)).float()
        if class_weights is None:
            loss = cross_entropy(logits, labels)
        else:  # over the photos, not over their weights: a batch without rare classes would count as much
            loss = cross_entropy(logits, labels, class_weights, reduction="sum") / len(labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        sizes.append(len(labels))
        correct += (logits.argmax(dim=1) == labels).sum()
    losses, sizes = torch.stack(losses).cpu(), torch.tensor(sizes)
    if not losses.isfinite().all():
        batch = losses.isfinite().int().argmin()
        raise FloatingPointError(f"the loss of batch {batch + 1} of {len(losses)} is {losses[batch]}")
    return (losses @ sizes.float()).item() / sizes.sum().item(), correct.item() / sizes.sum().item()


@torch.inference_mode()
def predict(
    model: nn.Module, batches: Iterable[Batch], computation: Computation
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels for all photos, in evaluation mode.

    Returns:
        float32 logits (n, classes) and int64 labels (n,), on the CPU.
    """
    model.eval()
    outputs, targets = [], []
    with mixed_precision(computation.device, computation.precision):
        for images, labels in batches:
            outputs.append(model(normalize(images, computation.standardization)).float())
            targets.append(labels)
    return torch.cat(outputs).cpu(), torch.cat(targets).cpu()


def score(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Mean cross-entropy and accuracy of logits (n, classes) against labels (n,).

    Raises:
        FloatingPointError: the loss is not finite.
    """
    loss = cross_entropy(logits, labels).item()
    if not isfinite(loss):
        raise FloatingPointError(f"the validation loss is {loss}")
    return loss, (logits.argmax(dim=1) == labels).double().mean().item()


def class_line(logits: torch.Tensor, labels: torch.Tensor, info: RunInfo) -> str:
    """What is added to an epoch's line where classes are unequal: the mean over classes, and the smallest class."""
    right = (logits.argmax(dim=1) == labels).double()
    photos = torch.bincount(labels, minlength=len(info.dataset.classes))
    accuracies = torch.bincount(labels, right, minlength=len(photos)) / photos  # NaN for a class without any
    names = list(info.dataset.classes)
    smallest = names.index(min(names, key=info.dataset.classes.get))
    return f"; balanced acc {accuracies.nanmean():.3f}, {names[smallest]} {accuracies[smallest]:.3f}"


def epoch_line(row: EpochMetrics, epochs: int) -> str:
    """What is printed after an epoch."""
    return (
        f"epoch {row.epoch:2d} of {epochs}: "
        f"train loss {row.train_loss:.3f} acc {row.train_acc:.3f}, "
        f"val loss {row.val_loss:.3f} acc {row.val_acc:.3f} "
        f"(augmented {row.val_aug_loss:.3f} {row.val_aug_acc:.3f}), "
        f"{row.train_seconds:.1f} + {row.val_seconds:.1f} s"
    )
