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

from flowerlib.allocator import ALLOCATOR_ENVIRONMENT
from flowerlib.bench import ways
from flowerlib.bench.operations import time_operations
from flowerlib.data.photos import PhotoSet, load_photos
from flowerlib.data.split import split_photos
from flowerlib.errors import UserError
from flowerlib.experiment import Experiment
from flowerlib.files import make_folder, write_text
from flowerlib.training.device import describe_device, peak_memory, pick_device, pick_precision
from flowerlib.training.gpu_loader import pick_loader
from flowerlib.training.loader import Loader
from flowerlib.training.loop import Computation, predict, score
from flowerlib.training.model import build_model, for_evaluation, load_weights, standardization

WARM_UP = 3  # batches
MEASURED = 16  # batches of 32 photos; with another batch size, as many batches as make as many photos
# For one 224 x 224 photo in a training step: forward, and twice as many backward, but for the gradient by the photo.
RESNET18_FLOP = 10.65e9
TRAINING, VALIDATION = 2278, 570  # photos in the paper's split
EQUAL_SHARE = 2 * VALIDATION / (2 * VALIDATION + 3 * TRAINING)  # evaluation's share of an epoch's operations


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        name: as in the tables.
        way: which of `TRAININGS` or `MEASURES` is measured.
        settings: what differs from the paper's settings.
        copies: how often the photos are repeated for a whole epoch; 0 measures some batches instead.
        epochs: after how many the accuracy is measured; 0 measures speed instead.
    """

    name: str
    way: str
    settings: dict
    copies: int = 0
    epochs: int = 0


def run_bench(source: str, out: Path, repetitions: int = 3, epochs: int = 0) -> None:
    """Measure, print tables and write bench.csv, augment.csv and scaling.csv, and with ``epochs`` accuracy.csv.

    Args:
        source: the photos, as for `flowerlib.data.photos.load_photos`.
        out: gets the tables, and machine.json, which describes the machine.
        repetitions: how often each case is measured; the tables show medians.
        epochs: if not 0, also train each way for so many epochs, from ImageNet's weights, and compare accuracies.

    Raises:
        UserError: the photos can't be used, or a measurement fails.
    """
    make_folder(out)
    photos = load_photos(source)
    device = pick_device("auto")
    machine = describe_device(device).model_dump(exclude={"deterministic"}) | {
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
    if epochs:
        compared = [case for case in _cases() if case.way in ("course", "fastai", "fast")]
        trained = [replace(case, epochs=epochs) for case in compared]
        accuracy = _measure(trained, source, 1)
        write_text(out / "accuracy.csv", accuracy.to_csv(index=False, lineterminator="\n"))
        print(f"After {epochs} epochs:", accuracy.to_string(index=False), sep="\n")
    print(f"The tables are in {out}")


def _cases() -> list[Case]:
    cases = [
        Case("the course's way", "course", {}),
        Case("our reference", "reference", {}),
        Case("our fast path", "fast", {}),
        Case("its step alone", "step", {}),
        Case("its evaluation", "evaluation", {}),
        Case("the machine's limit", "limit", {}),
    ]
    if importlib.util.find_spec("fastai"):
        cases.insert(1, Case("fastai", "fastai", {}))
    return cases


def _scaling() -> list[Case]:
    models = [Case(name, "fast", {"model": name}) for name in ("resnet34", "efficientnet_lite0")]
    sizes = [Case(f"image size {size}", "fast", {"image_size": size}) for size in (64, 96, 160, 224)]
    batches = [Case(f"batch size {size}", "fast", {"batch_size": size}) for size in (16, 32, 64, 128)]
    photos = [Case(f"{times} x the photos", "fast", {"image_size": 64}, times) for times in (1, 4, 16)]
    return models + sizes + batches + photos


def _measure(cases: list[Case], source: str, repetitions: int) -> pd.DataFrame:
    """Measure each case ``repetitions`` times, in turns; median images per second and peak mebibytes."""
    results: dict[str, list[dict]] = {case.name: [] for case in cases}
    for repetition in range(repetitions):
        for case in cases:
            result = _in_a_process(case, source)
            results[case.name].append(result)
            (what, value), *_ = result.items()
            print(f"  {repetition + 1} of {repetitions}: {case.name:24s} {value:8.3f} {what}", flush=True)
    rows = [
        {"case": name} | {key: median(result[key] for result in measured) for key in measured[0]}
        for name, measured in results.items()
    ]
    return pd.DataFrame(rows).round({"images a second": 1, "peak MiB": 1, "training seconds": 1, "clean accuracy": 4})


def _in_a_process(case: Case, source: str) -> dict:
    command = [sys.executable, "-m", "flowerlib.bench.speed", json.dumps(asdict(case)), source]
    # our own cases get what `flowerlib run` gives its sessions
    environment = os.environ | ({} if case.way in OTHERS else ALLOCATOR_ENVIRONMENT)
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
    experiment = Experiment(data=source, **{"weights": "imagenet" if case.epochs else "none"} | case.settings)
    photos = load_photos(source)
    if case.epochs:
        return _accuracy(TRAININGS[case.way], experiment, photos, case.epochs) | {"peak MiB": peak_memory()}
    if case.copies:
        images, seconds = _epoch(experiment, photos, case.copies)
    elif case.way in TRAININGS:
        images, seconds = _training(TRAININGS[case.way], experiment, photos)
    else:
        images, seconds = MEASURES[case.way](experiment, photos)
    return {"images a second": images / seconds, "peak MiB": peak_memory()}


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


def _training(way: Callable[..., ways.Way], experiment: Experiment, photos: PhotoSet) -> tuple[int, float]:
    _, batches, train = way(experiment, photos, np.arange(len(photos)))
    return _timed(_endless(batches), train, experiment.batch_size)


def _endless(batches: Callable[[], Iterator]) -> Iterator:
    while True:
        yield from batches()


def _step(experiment: Experiment, photos: PhotoSet) -> tuple[int, float]:
    _, batches, train = ways.fast(experiment, photos, np.arange(experiment.batch_size))
    batch = next(batches())
    return _timed(_endless(lambda: iter([batch])), train, experiment.batch_size)


def _evaluation(experiment: Experiment, photos: PhotoSet) -> tuple[int, float]:
    device = pick_device(experiment.device)
    model = build_model(experiment.model, len(photos.classes), load_weights("none", experiment.model))
    network = for_evaluation(model.to(device, memory_format=torch.channels_last).eval())
    computation = Computation(device, pick_precision(experiment.precision, device), standardization(experiment.model))
    loader = pick_loader(experiment, photos, device)
    indices = np.arange(MEASURED // 2 * experiment.batch_size) % len(photos)

    def both() -> Iterator:
        yield from loader.clean(indices)
        yield from loader.augmented(indices, 0)

    return _timed(_endless(both), lambda some: predict(network, some, computation), experiment.batch_size)


def _epoch(experiment: Experiment, photos: PhotoSet, copies: int) -> tuple[int, float]:
    """A whole epoch on copies of an eighth of the photos: how memory and time grow with their number."""
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
    _, batches, train = ways.fast(experiment, many, np.arange(len(many)))
    begun = perf_counter()
    train(batches())
    return len(many), perf_counter() - begun


def _accuracy(way: Callable[..., ways.Way], experiment: Experiment, photos: PhotoSet, epochs: int) -> dict:
    """Clean accuracy on the validation photos after some epochs on the training photos, by one way."""
    parts = split_photos(photos, experiment)
    model, batches, train = way(experiment, photos, parts.train)
    begun = perf_counter()
    for _ in range(epochs):
        train(batches())
    _wait_for_gpu()
    seconds = perf_counter() - begun
    device = pick_device(experiment.device)
    computation = Computation(device, "float32", standardization(experiment.model))
    clean = Loader(experiment, photos, device).clean(parts.validation)
    _, accuracy = score(*predict(for_evaluation(model), clean, computation))
    return {"clean accuracy": accuracy, "training seconds": seconds}


def _limit(experiment: Experiment, photos: PhotoSet) -> tuple[float, float]:
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


TRAININGS = {"course": ways.course, "fastai": ways.fastai, "reference": ways.reference, "fast": ways.fast}
MEASURES = {"step": _step, "evaluation": _evaluation, "limit": _limit}
OTHERS = ("course", "fastai", "limit")

if __name__ == "__main__":
    print(json.dumps(_run_case(Case(**json.loads(sys.argv[1])), sys.argv[2])))
