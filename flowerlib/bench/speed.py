"""How fast training is: the course's way, our reference, our fast path, the step alone, the machine's limit.

Each measurement runs in a process of its own, so that its peak memory is its own, and the repetitions are
interleaved, so that a noisy minute spoils one of each and not all of one.
"""

from __future__ import annotations

import importlib.util
import json
import resource
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

from flowerlib.bench.operations import time_operations
from flowerlib.data.photos import PhotoSet, load_photos
from flowerlib.data.threads import WORKERS
from flowerlib.errors import UserError
from flowerlib.experiment import IMAGENET_MEAN, IMAGENET_STD, Experiment
from flowerlib.files import make_folder, write_text
from flowerlib.training.augment import augment_reference
from flowerlib.training.device import describe_device, keep_freed_memory, pick_device, pick_precision
from flowerlib.training.loader import Loader
from flowerlib.training.loop import predict, train_epoch
from flowerlib.training.model import build_model, load_weights
from flowerlib.training.resident import pick_loader

WARM_UP, MEASURED = 3, 16  # batches of 32 photos; other batch sizes take as many photos
RESNET18_FLOP = 10.65e9  # of one training step, a photo of 224 x 224: forward, and twice that backward
TRAINING, VALIDATION = 2278, 570  # photos of the paper's split
EQUAL_SHARE = 2 * VALIDATION / (2 * VALIDATION + 3 * TRAINING)  # of an epoch's operations that are evaluation's


@dataclass(frozen=True)
class Case:
    """One measurement: its name, the way, and what differs from the paper's settings."""

    name: str
    way: str
    settings: dict
    repeat: int = 1


def run_bench(source: str, out: Path, repetitions: int = 3) -> None:
    """Measure, print tables and write bench.csv, augment.csv and scaling.csv.

    Args:
        source: the photos, as for `flowerlib.data.photos.load_photos`.
        out: gets the tables, and machine.json that describes the machine.
        repetitions: of each measurement; the median counts.

    Raises:
        UserError: the photos can't be used, or a measurement fails.
    """
    make_folder(out)
    photos = load_photos(source)
    machine = describe_device(pick_device("auto")).model_dump() | {
        "torch": torch.__version__,
        "photos": f"{photos.name}: {len(photos):,}",
    }
    print(json.dumps(machine))
    write_text(out / "machine.json", json.dumps(machine, indent=2) + "\n")
    speed = _relative(_measure(_cases(), source, repetitions))
    write_text(out / "bench.csv", speed.to_csv(index=False, lineterminator="\n"))
    print(speed.to_string(index=False))
    print(
        f"Both evaluation passes take {_evaluation_share(speed):.1%} of an epoch of the fast path; "
        f"{EQUAL_SHARE:.1%} would mean an equal speed of the operations."
    )
    operations = time_operations(photos)
    write_text(out / "augment.csv", operations.to_csv(index=False, lineterminator="\n"))
    print("The augmentation, milliseconds a photo on one thread:", operations.to_string(index=False), sep="\n")
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
    sizes = [Case(f"image size {size}", "fast", {"image_size": size}) for size in (64, 96, 160, 224)]
    batches = [Case(f"batch size {size}", "fast", {"batch_size": size}) for size in (16, 32, 64, 128)]
    photos = [Case(f"{times} x the photos", "epoch", {"image_size": 64}, times) for times in (1, 4, 16)]
    return sizes + batches + photos


def _measure(cases: list[Case], source: str, repetitions: int) -> pd.DataFrame:
    """Run each case ``repetitions`` times, in turns; medians of images a second and peak megabytes."""
    found: dict[str, list[dict]] = {case.name: [] for case in cases}
    for repetition in range(repetitions):
        for case in cases:
            found[case.name].append(_in_a_process(case, source))
            rate = found[case.name][-1]["images a second"]
            print(f"  {repetition + 1} of {repetitions}: {case.name:24s} {rate:8.1f} images a second", flush=True)
    rows = [
        {"case": name} | {key: median(result[key] for result in results) for key in results[0]}
        for name, results in found.items()
    ]
    return pd.DataFrame(rows).round(1)


def _in_a_process(case: Case, source: str) -> dict:
    command = [sys.executable, "-m", "flowerlib.bench.speed", json.dumps(asdict(case)), source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"The measurement of {case.name} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


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
    images, seconds = WAYS[case.way](experiment, load_photos(source), case.repeat)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return {"images a second": images / seconds, "peak MB": peak}


def _timed(batches: Iterator, step: Callable[[Iterator], object], batch_size: int) -> tuple[int, float]:
    """Warm up on a few batches, then time ``step`` on the following ones."""
    # as many photos whatever the batch size, and never fewer than two batches
    measured = max(2, MEASURED * 32 // batch_size)
    step(islice(batches, WARM_UP))
    begun = perf_counter()
    step(islice(batches, measured))
    return measured * batch_size, perf_counter() - begun


def _network(experiment: Experiment, classes: int) -> tuple[nn.Module, SGD, torch.device, str]:
    keep_freed_memory()
    device = pick_device(experiment.device)
    model = build_model(experiment.model, classes, load_weights("none", experiment.model))
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = SGD(model.parameters(), lr=experiment.learning_rate, momentum=experiment.momentum)
    return model, optimizer, device, pick_precision(experiment.precision, device)


def _endless(batches: Callable[[int], Iterator]) -> Iterator:
    epoch = 0
    while True:
        yield from batches(epoch)
        epoch += 1


def _fast(experiment: Experiment, photos: PhotoSet, _: int) -> tuple[int, float]:
    return _time_training(experiment, pick_loader(experiment, photos, pick_device(experiment.device)))


def _reference(experiment: Experiment, photos: PhotoSet, _: int) -> tuple[int, float]:
    return _time_training(experiment, Loader(experiment, photos, augment=augment_reference))


def _time_training(experiment: Experiment, loader: Loader) -> tuple[int, float]:
    model, optimizer, device, precision = _network(experiment, len(loader.photos.classes))
    indices = np.arange(len(loader.photos))
    batches = _endless(lambda epoch: loader.training(indices, epoch))
    return _timed(batches, lambda some: train_epoch(model, optimizer, some, device, precision), experiment.batch_size)


def _step(experiment: Experiment, photos: PhotoSet, _: int) -> tuple[int, float]:
    model, optimizer, device, precision = _network(experiment, len(photos.classes))
    batch = next(Loader(experiment, photos).training(np.arange(experiment.batch_size), 0))
    batches = _endless(lambda epoch: iter([batch]))
    return _timed(batches, lambda some: train_epoch(model, optimizer, some, device, precision), experiment.batch_size)


def _evaluation(experiment: Experiment, photos: PhotoSet, _: int) -> tuple[int, float]:
    model, _, device, precision = _network(experiment, len(photos.classes))
    loader, indices = Loader(experiment, photos), np.arange(MEASURED // 2 * experiment.batch_size) % len(photos)

    def both(epoch: int) -> Iterator:
        yield from loader.clean(indices)
        yield from loader.augmented(indices, epoch)

    return _timed(_endless(both), lambda some: predict(model, some, device, precision), experiment.batch_size)


def _epoch(experiment: Experiment, photos: PhotoSet, repeat: int) -> tuple[int, float]:
    """A whole epoch on an eighth of the photos, repeated: how memory and cost grow with their number."""
    model, optimizer, device, precision = _network(experiment, len(photos.classes))
    some = np.arange(0, len(photos), 8)
    many = replace(
        photos,
        paths=tuple(photos.paths[index] for index in some) * repeat,
        labels=np.tile(photos.labels[some], repeat),
        pixels=replace(
            photos.pixels,
            sizes=np.tile(photos.pixels.sizes[some], (repeat, 1)),
            starts=np.tile(photos.pixels.starts[some], repeat),
        ),
    )
    loader = Loader(experiment, many)
    begun = perf_counter()
    train_epoch(model, optimizer, loader.training(np.arange(len(many)), 0), device, precision)
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
    """What a user would take instead: fastai's vision_learner with its own augmentation at this size."""
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
    """The network's operations at the speed of one large matrix product, the fastest that the machine does."""
    device = pick_device(experiment.device)
    kind = torch.bfloat16 if pick_precision(experiment.precision, device) == "bfloat16" else torch.float32
    side = 8192 if device.type == "cuda" else 4096
    left, right = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
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

if __name__ == "__main__":
    print(json.dumps(_run_case(Case(**json.loads(sys.argv[1])), sys.argv[2])))
