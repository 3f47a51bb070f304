"""What happens in the processes that tests/test_faults.py starts, and how they come to grief."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import torch

from flowerlib import files
from flowerlib.data import cache
from flowerlib.data import photos as dataset
from flowerlib.errors import UserError
from flowerlib.experiment import Experiment
from flowerlib.training import loop as train

# a network whose checkpoints take a megabyte, not ninety: the tests are about their writing, again and again
TINY = Experiment(
    model="shufflenet_v2_x0_5", weights="none", image_size=40, epochs=3, batch_size=7, learning_rate=0.01, lr_step=1,
    device="cpu", precision="float32", repeats=2,
)  # fmt: skip
NOBODY = 65534

# one process that has imported all and computed nothing; each test's processes are forked from it, in milliseconds
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["flowerlib.training.loop", "flowerlib.data.photos", __name__])


def start(work: Callable, *arguments) -> multiprocessing.Process:
    """Do ``work(*arguments)`` in a process of its own."""
    process = processes.Process(target=work, args=arguments)
    process.start()
    return process


def outcome(work: Callable, *arguments) -> int:
    """The exit status of ``work(*arguments)`` in a process of its own; negative for a signal."""
    process = start(work, *arguments)
    process.join()
    return process.exitcode


def session(photos: Path, run_dir: Path, fault: Callable | None = None, *arguments) -> None:
    """Train `TINY`, or go on with it; what it says goes to said.txt beside ``run_dir``. A `UserError` gives 1."""
    torch.set_num_threads(1)
    _share_cache(photos)
    with run_dir.with_name("said.txt").open("w", encoding="utf-8") as said, redirect_stdout(said):
        if fault:
            fault(*arguments)
        try:
            train.train_and_evaluate(TINY, dataset.load_photos(str(photos)), run_dir)
        except UserError as error:
            print(error)
            sys.exit(1)


def decode(photos: Path, fault: Callable | None = None, *arguments) -> None:
    """Decode the photos into their cache."""
    _share_cache(photos)
    if fault:
        fault(*arguments)
    dataset.load_photos(str(photos))


def _share_cache(photos: Path) -> None:
    # the process that all are forked from has an environment of its own
    os.environ["FLOWERLIB_CACHE"] = str(photos.parent / "cache")


def write(path: Path) -> None:
    """Replace a file and make a folder beside it, as somebody without the right to."""
    if os.getuid() == 0:
        os.setuid(NOBODY)
    for attempt in (lambda: files.write_text(path, "new"), lambda: files.make_folder(path.parent / "new")):
        try:
            attempt()
        except UserError:
            continue
        sys.exit(2)


# Faults: each is put in place before the work begins.


def die() -> None:
    """As by a power cut: nothing is flushed, closed or removed."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_batch(number: int) -> None:
    """Before batch ``number``, of training and evaluation, from 1."""
    _count(train, "normalize", number, lambda *given: die())


def die_before_move(number: int) -> None:
    """When a file is complete, and not yet in its place."""
    seen = []

    def watch(event: str, details: tuple) -> None:
        if event == "os.rename" and details[0] != details[1]:
            seen.append(event)
            if len(seen) == number:
                die()

    sys.addaudithook(watch)


def die_in_checkpoint(number: int) -> None:
    """With half of a checkpoint on the disk."""

    def half(file: Path, content: memoryview) -> None:
        with file.open("wb", buffering=0) as stream:
            stream.write(content[: len(content) // 2])
        die()

    _count(Path, "write_bytes", number, half)


def die_in_cache(number: int) -> None:
    """Before photo ``number`` is added to the cache."""
    _count(cache.CacheWriter, "append", number, lambda writer, pixels: die())


def fill_disk(size: int) -> None:
    """No file can grow beyond ``size`` bytes, nearly as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def spoil_batch(number: int) -> None:
    """In batch ``number`` the network is given what is no number."""
    normalize = train.normalize
    _count(train, "normalize", number, lambda *given: normalize(*given) * float("nan"))


def _count(owner: object, name: str, number: int, fault: Callable) -> None:
    """Put ``fault`` in the place of call ``number`` of a function."""
    original, calls = getattr(owner, name), []

    def counted(*arguments):
        calls.append(arguments)
        return (fault if len(calls) == number else original)(*arguments)

    setattr(owner, name, counted)
