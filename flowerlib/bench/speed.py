"""How fast training is: the course's way, our reference, our fast path, the step alone, the machine's limit.

Each measurement runs in a separate process, so that its peak memory can be measured. The repetitions are
interleaved, so that a noisy minute spoils one repetition of each case rather than every repetition of one.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torchvision import transforms
from torchvision.datasets import ImageFolder

from flowerlib.allocator import ALLOCATOR_ENVIRONMENT
from flowerlib.bench.operations import time_operations
from flowerlib.data.photos import PhotoSet, load_photos
from flowerlib.data.threads import WORKERS
from flowerlib.errors import UserError
from flowerlib.experiment import IMAGENET_MEAN, IMAGENET_STD, Experiment
from flowerlib.files import make_folder, write_text
from flowerlib.training.augment import augment_reference
from flowerlib.training.device import describe_device, make_reproducible, peak_memory, pick_device, pick_precision
from flowerlib.training.loader import Loader
from flowerlib.training.loop import Computation, predict, train_epoch
from flowerlib.training.model import build_model, load_weights, standardization
from flowerlib.training.resident import pick_loader

WARM_UP, MEASURED = 3, 16  # batches of 32 photos; with another batch size, as many batches as make as many photos
RESNET18_FLOP = 10.65e9  # for one 224 x 224 photo in a training step: forward, and twice as many backward
TRAINING, VALIDATION = 2278, 570  # photos in the paper's split
EQUAL_SHARE = 2 * VALIDATION / (2 * VALIDATION + 3 * TRAINING)  # evaluation's share of an epoch's operations


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        name: as in the tables.
        way: which of `WAYS` is measured.
        settings: what differs from the paper's settings.
        copies: how often the photos are repeated, for ``epoch``.
    """

    name: str
    way: str
    settings: dict
    copies: int = 1


def run_bench(source: str, out: Path, repetitions: int = 3) -> None:
    """Measure, print tables and write bench.csv, augment.csv and scaling.csv.

    Args:
        source: the photos, as for `flowerlib.data.photos.load_photos`.
        out: gets the tables, and machine.json, which describes the machine.
        repetitions: how often each case is measured; the tables show medians.

    Raises:
        UserError: the photos can't be used, or a measurement fails.
    """
    make_folder(out)
    photos = load_photos(source)
    device = pick_device("auto")
    make_reproducible(device)  # as a session does; what others measure is left as PyTorch sets it, with TF32 on a GPU
    machine = describe_device(device).model_dump() | {
        "torch": torch.__version__,
        "photos": f"{photos.name}: {len(photos):,}",
    }
    print(json.dumps(machine))
    write_text(out / "machine.json", json.dumps(machine, indent=2) + "\n")
    speed = _relative(_measure(_cases(), source, repetitions)).assign(device=machine["name"])
    write_text(out / "bench.csv", speed.to_csv(index=False, lineterminator="\n"))
    print(speed.to_string(index=False))
    print(
        f"On the fast path both evaluation passes take {_evaluation_share(speed):.1%} of an epoch; "
        f"{EQUAL_SHARE:.1%} would mean that their operations are as fast as those of training."
    )
    operations = time_operations(photos)
    write_text(out / "augment.csv", operations.to_csv(index=False, lineterminator="\n"))
    print("The augmentation, in milliseconds per photo on one thread:", operations.to_string(index=False), sep="\n")
    scaling = _measure(_scaling(), source, 1)
    write_text(out / "scaling.csv", scaling.to_csv(index=False, lineterminator="\n"))
    print(scaling.to_string(index=False))
    print(f"The tables are in {out}")


def _cases() -> list[Case]:
    cases = [
        Case("the course's way", "course", {}),
        Case("our reference", "reference", {"precision": "float32"}),
        Case("our fast path", "fast", {}),
        Case("its step alone", "step", {}),
        Case("its evaluation", "evaluation", {}),
        Case("the machine's limit", "limit", {}),
    ]
    if importlib.util.find_spec("fastai"):
        cases.insert(1, Case("fastai's vision_learner", "fastai", {}))
    return cases


def _scaling() -> list[Case]:
    models = [Case(name, "fast", {"model": name}) for name in ("resnet34", "efficientnet_lite0")]
    sizes = [Case(f"image size {size}", "fast", {"image_size": size}) for size in (64, 96, 160, 224)]
    batches = [Case(f"batch size {size}", "fast", {"batch_size": size}) for size in (16, 32, 64, 128)]
    photos = [Case(f"{times} x the photos", "epoch", {"image_size": 64}, times) for times in (1, 4, 16)]
    return models + sizes + batches + photos


def _measure(cases: list[Case], source: str, repetitions: int) -> pd.DataFrame:
    """Measure each case ``repetitions`` times, in turns; median images per second and peak megabytes."""
    results: dict[str, list[dict]] = {case.name: [] for case in cases}
    for repetition in range(repetitions):
        for case in cases:
            results[case.name].append(_in_a_process(case, source))
            rate = results[case.name][-1]["images a second"]
            print(f"  {repetition + 1} of {repetitions}: {case.name:24s} {rate:8.1f} images per second", flush=True)
    rows = [
        {"case": name} | {key: median(result[key] for result in measured) for key in measured[0]}
        for name, measured in results.items()
    ]
    return pd.DataFrame(rows).round(1)


def _in_a_process(case: Case, source: str) -> dict:
    command = [sys.executable, "-m", "flowerlib.bench.speed", json.dumps(asdict(case)), source]
    # our own cases get what `flowerlib run` gives its sessions
    environment = os.environ | (ALLOCATOR_ENVIRONMENT if case.way in OWN_WAYS else {})
    process = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if process.returncode:
        # a process that was killed leaves no error message
        reason = [f"exit status {process.returncode}", *process.stderr.strip().splitlines()][-1]
        raise UserError(f"Measuring {case.name} failed: {reason}")
    return json.loads(process.stdout.splitlines()[-1])


def _relative(speed: pd.DataFrame) -> pd.DataFrame:
    rate = speed.set_index("case")["images a second"]
    speed["times the course's way"] = (speed["images a second"] / rate["the course's way"]).round(2)
    speed["share of the limit"] = (speed["images a second"] / rate["the machine's limit"]).round(3)
    return speed


def _evaluation_share(speed: pd.DataFrame) -> float:
    rate = speed.set_index("case")["images a second"]
    evaluation = 2 * VALIDATION / rate["its evaluation"]
    return evaluation / (evaluation + TRAINING / rate["our fast path"])


def _run_case(case: Case, source: str) -> dict:
    experiment = Experiment(weights="none", data=source, **case.settings)
    images, seconds = WAYS[case.way](experiment, load_photos(source), case.copies)
    return {"images a second": images / seconds, "peak MB": peak_memory()}


def _timed(batches: Iterator, step: Callable[[Iterator], object], batch_size: int) -> tuple[int, float]:
    """Warm up on a few batches, then time ``step`` on the following ones."""
    # the same number of photos whatever the batch size, and never fewer than two batches
    measured = max(2, MEASURED * 32 // batch_size)
    step(islice(batches, WARM_UP))
    _wait_for_gpu()
    begun = perf_counter()
    step(islice(batches, measured))
    _wait_for_gpu()
    return measured * batch_size, perf_counter() - begun


def _wait_for_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _network(experiment: Experiment, classes: int) -> tuple[nn.Module, SGD, Computation]:
    device = pick_device(experiment.device)
    make_reproducible(device)  # as a session does
    model = build_model(experiment.model, classes, load_weights("none", experiment.model))
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = SGD(model.parameters(), lr=experiment.learning_rate, momentum=experiment.momentum)
    precision = pick_precision(experiment.precision, device)
    return model, optimizer, Computation(device, precision, standardization(experiment.model))


def _endless(batches: Callable[[int], Iterator]) -> Iterator:
    epoch = 0
    while True:
        yield from batches(epoch)
        epoch += 1


def _fast(experiment: Experiment, photos: PhotoSet, _: int) -> tuple[int, float]:
    return _time_training(experiment, _loader(experiment, photos))


def _loader(experiment: Experiment, photos: PhotoSet) -> Loader:
    return pick_loader(experiment, photos, pick_device(experiment.device))


def _reference(experiment: Experiment, photos: PhotoSet, _: int) -> tuple[int, float]:
    device = pick_device(experiment.device)
    return _time_training(experiment, Loader(experiment, photos, device, augment=augment_reference))


def _time_training(experiment: Experiment, loader: Loader) -> tuple[int, float]:
    model, optimizer, computation = _network(experiment, len(loader.photos.classes))
    indices = np.arange(len(loader.photos))
    batches = _endless(lambda epoch: loader.training(indices, epoch))
    return _timed(batches, lambda some: train_epoch(model, optimizer, some, computation), experiment.batch_size)


def _step(experiment: Experiment, photos: PhotoSet, _: int) -> tuple[int, float]:
    model, optimizer, computation = _network(experiment, len(photos.classes))
    batch = next(_loader(experiment, photos).training(np.arange(experiment.batch_size), 0))
    batches = _endless(lambda epoch: iter([batch]))
    return _timed(batches, lambda some: train_epoch(model, optimizer, some, computation), experiment.batch_size)


def _evaluation(experiment: Experiment, photos: PhotoSet, _: int) -> tuple[int, float]:
    model, _, computation = _network(experiment, len(photos.classes))
    loader = _loader(experiment, photos)
    indices = np.arange(MEASURED // 2 * experiment.batch_size) % len(photos)

    def both(epoch: int) -> Iterator:
        yield from loader.clean(indices)
        yield from loader.augmented(indices, epoch)

    return _timed(_endless(both), lambda some: predict(model, some, computation), experiment.batch_size)


def _epoch(experiment: Experiment, photos: PhotoSet, copies: int) -> tuple[int, float]:
    """A whole epoch on copies of an eighth of the photos: how memory and time grow with their number."""
    model, optimizer, computation = _network(experiment, len(photos.classes))
    some = np.arange(0, len(photos), 8)
    many = replace(
        photos,
        paths=tuple(photos.paths[index] for index in some) * copies,
        labels=np.tile(photos.labels[some], copies),
        pixels=replace(
            photos.pixels,
            sizes=np.tile(photos.pixels.sizes[some], (copies, 1)),
            starts=np.tile(photos.pixels.starts[some], copies),
        ),
    )
    loader = _loader(experiment, many)
    begun = perf_counter()
    train_epoch(model, optimizer, loader.training(np.arange(len(many)), 0), computation)
    return len(many), perf_counter() - begun


def _course(experiment: Experiment, photos: PhotoSet, _: int) -> tuple[int, float]:
    """The usual template: ImageFolder, Pillow's transforms, worker processes, float32."""
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(experiment.image_size),
            transforms.RandomHorizontalFlip(experiment.flip),
            transforms.RandomRotation(experiment.rotation),
            transforms.ColorJitter(
                experiment.brightness, experiment.contrast, experiment.saturation, experiment.hue
            ),
            transforms.RandomAffine(0, translate=(experiment.translation, experiment.translation)),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )  # fmt: skip
    data = ImageFolder(str(photos.root), transform)
    batches = torch.utils.data.DataLoader(
        data, experiment.batch_size, shuffle=True, num_workers=WORKERS, drop_last=True
    )
    device = pick_device(experiment.device)
    model = build_model(experiment.model, len(photos.classes), load_weights("none", experiment.model)).to(device)
    optimizer = SGD(model.parameters(), lr=experiment.learning_rate, momentum=experiment.momentum)

    def step(some: Iterator) -> None:
        model.train()
        running_loss, correct = 0.0, 0
        for images, labels in some:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            logits = model(images)
            loss = cross_entropy(logits, labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item() * len(images)
            correct += (logits.argmax(1) == labels).sum().item()

    return _timed(_endless(lambda epoch: iter(batches)), step, experiment.batch_size)


def _fastai(experiment: Experiment, photos: PhotoSet, _: int) -> tuple[int, float]:
    """What a user might take instead: fastai's vision_learner, with its own augmentation at this size."""
    from fastai.vision import all as fastai

    data = fastai.ImageDataLoaders.from_folder(
        photos.root,
        valid_pct=0.2,
        seed=experiment.seed,
        bs=experiment.batch_size,
        num_workers=WORKERS,
        item_tfms=fastai.RandomResizedCrop(experiment.image_size),
        batch_tfms=[*fastai.aug_transforms(), fastai.Normalize.from_stats(IMAGENET_MEAN, IMAGENET_STD)],
    )
    learner = fastai.vision_learner(
        data, getattr(fastai, experiment.model), pretrained=False, metrics=fastai.accuracy
    )
    learner.unfreeze()

    def step(some: Iterator) -> None:
        learner.model.train()
        learner.create_opt()
        for images, labels in some:
            loss = learner.loss_func(learner.model(images), labels)
            loss.backward()
            learner.opt.step()
            learner.opt.zero_grad()

    return _timed(_endless(lambda epoch: iter(data.train)), step, experiment.batch_size)


def _limit(experiment: Experiment, photos: PhotoSet, _: int) -> tuple[float, float]:
    """The network's operations at the speed of one large matrix product, the fastest the machine can do."""
    device = pick_device(experiment.device)
    dtype = torch.bfloat16 if pick_precision(experiment.precision, device) == "bfloat16" else torch.float32
    side = 8192 if device.type == "cuda" else 4096
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(6):
        begun = perf_counter()
        (left @ right)[0, 0].item()
        seconds.append(perf_counter() - begun)
    return 2 * side**3 / RESNET18_FLOP, median(seconds[1:])


WAYS = {
    "course": _course,
    "reference": _reference,
    "fast": _fast,
    "step": _step,
    "evaluation": _evaluation,
    "epoch": _epoch,
    "limit": _limit,
    "fastai": _fastai,
}
OWN_WAYS = ("reference", "fast", "step", "evaluation", "epoch")

if __name__ == "__main__":
    print(json.dumps(_run_case(Case(**json.loads(sys.argv[1])), sys.argv[2])))
