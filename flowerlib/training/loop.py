"""The training loop: one session, from initial weights to tables and checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from pathlib import Path
from time import perf_counter

import torch
from torch import nn
from torch.nn.functional import cross_entropy, softmax
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

from flowerlib.data.photos import PhotoSet, split
from flowerlib.errors import UserError
from flowerlib.experiment import Experiment
from flowerlib.files import alone, check_space, make_folder
from flowerlib.progress import PhotoBar
from flowerlib.runs import (
    EpochMetrics,
    Run,
    is_finished,
    read_run,
    write_info,
    write_metrics,
    write_predictions,
    write_repeats,
)
from flowerlib.training.augment import normalize
from flowerlib.training.checkpoint import read_last, space_needed, write_best, write_last
from flowerlib.training.device import keep_freed_memory, mixed_precision, pick_device, pick_precision
from flowerlib.training.model import build_model, load_weights, set_training
from flowerlib.training.provenance import describe_run
from flowerlib.training.resident import pick_loader

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


def train_and_evaluate(experiment: Experiment, photos: PhotoSet, run_dir: Path) -> Run:
    """Train one session, or go on with it where it stopped, and write its tables to ``run_dir``.

    Each epoch trains on the augmented training photos (paper, section 3), then evaluates the validation
    photos twice: clean, and augmented as the paper measured. Every random draw is keyed by the seed, the
    epoch and the photo, so that a checkpoint needs no generator's state.

    Args:
        experiment: the settings.
        photos: what to train on.
        run_dir: gets metrics.csv, predictions.csv, repeats.csv, run.json, last.pt and best.pt.

    Returns:
        The run's tables, as written.

    Raises:
        UserError: weights, device or folder can't be used, ``run_dir`` holds a run of other inputs, another process
            is at work in it, or the loss is no longer finite.
    """
    with alone(make_folder(run_dir) / ".lock", run_dir):
        for leftover in run_dir.glob(".*.part"):  # of a process that was killed
            leftover.unlink()
        return _train_and_evaluate(experiment, photos, run_dir)


def _train_and_evaluate(experiment: Experiment, photos: PhotoSet, run_dir: Path) -> Run:
    keep_freed_memory()
    device = pick_device(experiment.device)
    precision = pick_precision(experiment.precision, device)
    weights = load_weights(experiment.weights, experiment.model)
    parts = split(photos, experiment.split_seed)
    loader = pick_loader(experiment, photos, device)

    torch.manual_seed(experiment.seed)
    model = build_model(experiment.model, len(photos.classes), weights, experiment.freeze)
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = SGD(model.parameters(), lr=experiment.learning_rate, momentum=experiment.momentum)
    scheduler = StepLR(optimizer, step_size=experiment.lr_step, gamma=experiment.lr_factor)

    info = describe_run(experiment, photos, parts, weights, device, precision)
    progress = read_last(run_dir, info, model, optimizer, scheduler)
    history, logits, info = progress.history, progress.logits, info.model_copy(update={"earlier": progress.earlier})
    finished = is_finished(run_dir)
    if len(history) == experiment.epochs and finished:
        return read_run(run_dir)  # run.json goes on saying where it was computed
    if not history and finished:
        raise UserError(f"{run_dir} holds a finished run without its checkpoints. Choose another folder, or --force.")
    if not history:
        check_space(run_dir, space_needed(model))
    write_info(run_dir, info)
    write_metrics(run_dir / "metrics.csv", history)  # it may be lost, or ahead of an older checkpoint

    for epoch in range(len(history), experiment.epochs):
        learning_rate = scheduler.get_last_lr()[0]
        # dropout, in networks that have it, is the one draw left to torch's own generator
        torch.manual_seed((experiment.seed << 32) + epoch)
        try:
            with PhotoBar(f"epoch {epoch}", len(parts.train) + 2 * len(parts.validation)) as bar:
                begun = perf_counter()
                train_loss, train_acc = train_epoch(
                    model, optimizer, bar.over(loader.training(parts.train, epoch)), device, precision
                )
                trained = perf_counter()
                logits, labels = predict(model, bar.over(loader.clean(parts.validation)), device, precision)
                augmented = predict(model, bar.over(loader.augmented(parts.validation, epoch)), device, precision)
                evaluated = perf_counter()
            val_loss, val_acc = score(logits, labels)
            val_aug_loss, val_aug_acc = score(*augmented)
        except FloatingPointError as error:
            raise UserError(
                f"Training has gone wrong in epoch {epoch}: {error}, at learning rate {learning_rate:g}. The "
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
            write_best(run_dir, info, model)
        history.append(row)
        write_metrics(run_dir / "metrics.csv", history)
        write_last(run_dir, info, model, optimizer, scheduler, history, logits)
        print(epoch_line(row, experiment.epochs), flush=True)  # what is said is kept

    names = [photos.paths[index] for index in parts.validation]
    probabilities = softmax(logits, dim=1).numpy()
    write_predictions(
        run_dir / "predictions.csv", names, photos.labels[parts.validation], probabilities, photos.classes
    )
    with PhotoBar("repeats", experiment.repeats * len(parts.validation)) as bar:
        views = (
            loader.augmented(parts.validation, experiment.epochs + number) for number in range(experiment.repeats)
        )
        repeats = [score(*predict(model, bar.over(batches), device, precision))[1] for batches in views]
    write_repeats(run_dir / "repeats.csv", repeats)
    write_info(run_dir, info.model_copy(update={"finished": True}))
    return read_run(run_dir)


def train_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches, device: torch.device, precision: str
) -> tuple[float, float]:
    """One pass of gradient steps; the mean loss and accuracy of the network as it changed.

    Args:
        model: on ``device``.
        optimizer: of its parameters.
        batches: uint8 images (n, size, size, 3) and int64 labels (n,).
        device: where to compute.
        precision: ``bfloat16`` for the network's products in mixed precision, or ``float32``.

    Returns:
        Mean cross-entropy and accuracy over all photos; exact, also with a short last batch.

    Raises:
        FloatingPointError: the loss of a batch is not finite. It is found when the pass is over: to ask for each
            batch would make a GPU wait.
    """
    set_training(model)
    losses, sizes, correct = [], [], torch.zeros((), device=device)
    for images, labels in batches:
        images, labels = images.to(device), labels.to(device)
        with mixed_precision(device, precision):
            logits = model(normalize(images)).float()
        loss = cross_entropy(logits, labels)
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
    model: nn.Module, batches: Batches, device: torch.device, precision: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels of all photos, in evaluation mode.

    Returns:
        float32 logits (n, classes) and int64 labels (n,), on the CPU.
    """
    model.eval()
    outputs, targets = [], []
    with mixed_precision(device, precision):
        for images, labels in batches:
            outputs.append(model(normalize(images.to(device))).float())
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


def epoch_line(row: EpochMetrics, epochs: int) -> str:
    """What is printed of an epoch."""
    return (
        f"epoch {row.epoch:2d} of {epochs}: "
        f"train loss {row.train_loss:.3f} acc {row.train_acc:.3f}, "
        f"val loss {row.val_loss:.3f} acc {row.val_acc:.3f} "
        f"(augmented {row.val_aug_loss:.3f} {row.val_aug_acc:.3f}), "
        f"{row.train_seconds:.1f} + {row.val_seconds:.1f} s"
    )
