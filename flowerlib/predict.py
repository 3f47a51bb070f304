"""What is in a photo: the predictions of a trained network, of an exported one without PyTorch."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from flowerlib.calibration import softmax
from flowerlib.data.crop import centre_crop
from flowerlib.data.decoding import SUFFIXES, decode, kept_side, read_bytes, why_unreadable
from flowerlib.data.listing import is_hidden, why_unused
from flowerlib.data.photos import say_what_is_left_out
from flowerlib.data.threads import in_threads
from flowerlib.errors import UserError, one_line
from flowerlib.files import is_printable, make_folder, replacing, write_text

BATCH = 32
# of a contact sheet: an image of 8 by 50 photos can still be looked at; a name's end is what tells it from others
COLUMNS, MOST_ON_SHEET, LONGEST_NAME = 8, 400, 18
SIDE = 1.3  # inches
NETWORKS = "Give a session's best.pt or last.pt, or an ONNX file that .venv/bin/flowerlib export has written."


@dataclass(frozen=True)
class Network:
    """A trained network, ready to be asked.

    Attributes:
        classes: names, in the order of its outputs.
        image_size: side of its input, in pixels.
        logits: takes views, uint8 (n, size, size, 3); returns float32 (n, classes).
        temperature: divides the logits.
        unsure_below: an answer whose highest probability is lower is unsure.
        grad_cam: where it looks: takes views and n class indices, as `flowerlib.training.trained.grad_cam` does; None
            where that can't be computed.
    """

    classes: list[str]
    image_size: int
    logits: Callable[[np.ndarray], np.ndarray]
    temperature: float
    unsure_below: float
    grad_cam: Callable[[np.ndarray, Sequence[int]], np.ndarray] | None = None


@dataclass(frozen=True)
class Prediction:
    """What a network says to a photo: a probability for each class, (classes,), and the view that it saw."""

    probabilities: np.ndarray
    unsure: bool
    view: np.ndarray

    def top(self, count: int) -> list[int]:
        """The ``count`` most probable classes, the most probable first."""
        return np.argsort(-self.probabilities, kind="stable")[:count].tolist()


def open_network(path: Path) -> Network:
    """Open a best.pt, a last.pt with run.json beside it, or an exported ONNX file.

    best.pt is asked in float32, as the ONNX file computes, so that both answer alike on every machine; last.pt as
    its session was evaluated, in its precision and without a temperature, so that it gives predictions.csv again.

    Raises:
        UserError: it is missing, damaged, or something else.
    """
    try:
        with path.open("rb") as file:
            is_checkpoint = file.read(2) == b"PK"  # PyTorch writes zip files
    except OSError as error:
        raise UserError(f"The network {path} can't be read ({one_line(error)}). {NETWORKS}") from error
    return _open_checkpoint(path) if is_checkpoint else _open_onnx(path)


def _open_checkpoint(path: Path) -> Network:
    # PyTorch takes seconds, which an ONNX file should not cost
    from flowerlib.training.trained import grad_cam, last_feature_layer, logits, read_trained

    trained = read_trained(path)
    layer = last_feature_layer(trained.network)
    look = partial(grad_cam, trained.network, layer, standardization=trained.standardization)
    return Network(
        trained.classes,
        trained.image_size,
        partial(logits, trained),
        trained.temperature,
        trained.unsure_below,
        None if layer is None else look,
    )


def _open_onnx(path: Path) -> Network:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        told = session.get_modelmeta().custom_metadata_map
        classes, image_size = json.loads(told["classes"]), int(told["image_size"])
        mean, std = (np.array(json.loads(told[name]), np.float32) for name in ("mean", "std"))
        temperature, unsure_below = float(told.get("temperature", 1)), float(told.get("unsure_below", 0))
    except Exception as error:  # ONNX Runtime has its own kinds, which derive from nothing else
        raise UserError(f"{path} can't be used as a network ({one_line(error)}). {NETWORKS}") from error

    def logits(views: np.ndarray) -> np.ndarray:
        pictures = (views * (1 / (255 * std)) - mean / std).transpose(0, 3, 1, 2)
        return session.run(["logits"], {"pictures": np.ascontiguousarray(pictures)})[0]

    return Network(classes, image_size, logits, temperature, unsure_below)


def find_photos(places: Sequence[str]) -> tuple[dict[str, Callable[[], bytes]], dict[str, str]]:
    """Photos by name, each with what reads its file; and what folders hold besides, with the reason.

    Args:
        places: files, which are taken for photos, and folders, which are searched with all folders in them.
    """
    photos, unused = {}, {}
    for place in map(Path, places):
        for file in _files(place) if place.is_dir() else [place]:
            name = str(file) if is_printable(str(file)) else ascii(str(file))
            if file != place and (reason := why_unused(file)):
                unused[name] = reason
            else:
                photos[name] = partial(_read, file)
    return photos, unused


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(Path(name)))
        yield from (Path(root, name) for name in sorted(files))


def _read(file: Path) -> bytes:
    file.stat()  # raises if it is missing, which would be called no photo
    if reason := why_unused(file):
        raise ValueError(reason)
    return read_bytes(file)


def predict(network: Network, photos: Mapping[str, Callable[[], bytes]]) -> Iterator[tuple[str, Prediction | str]]:
    """Yield each photo's name with the network's answer, or with the reason why it can't be read, in order.

    Photos are decoded in threads, a few batches ahead.
    """
    names = list(photos)
    batches = [names[start : start + BATCH] for start in range(0, len(names), BATCH)]

    def load(batch: list[str]) -> list[np.ndarray | str]:
        return [_view(photos[name], network.image_size) for name in batch]

    for batch, loaded in zip(batches, in_threads(load, batches, give_way=True), strict=True):
        views = [view for view in loaded if not isinstance(view, str)]
        probabilities = iter(softmax(network.logits(np.stack(views)), network.temperature) if views else ())
        for name, view in zip(batch, loaded, strict=True):
            if isinstance(view, str):
                yield name, view
            else:
                row = next(probabilities)
                yield name, Prediction(row, bool(row.max() < network.unsure_below), view)


def _view(read: Callable[[], bytes], size: int) -> np.ndarray | str:
    try:
        return centre_crop(np.asarray(decode(read(), kept_side(size))), size)
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        return why_unreadable(error)


def predict_photos(checkpoint: Path, places: Sequence[str], top: int, table: Path | None, sheet: Path | None) -> None:
    """Print a line for each photo: its most probable classes, and whether the network is unsure.

    Args:
        checkpoint: see `open_network`.
        places: see `find_photos`.
        top: how many classes are printed.
        table: gets a row a photo as CSV: ``photo``, a probability for each class, ``unsure``.
        sheet: gets a PNG of the photos under their answers, of the first `MOST_ON_SHEET`.

    Raises:
        UserError: the network can't be used, there is no photo, or, when all others have been answered, some can't
            be read.
    """
    photos, unused = find_photos(places)
    say_what_is_left_out(unused)
    if not photos:
        raise UserError(
            f"There is no photo in {', '.join(places)}. Name photos ({', '.join(sorted(SUFFIXES))}), or folders "
            "that hold some."
        )
    network = open_network(checkpoint)
    rows, shown, unreadable, width = [], {}, {}, max(map(len, photos))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about odd metadata in photos that it can read
        for name, answer in predict(network, photos):
            if isinstance(answer, str):
                unreadable[name] = answer
                continue
            print(f"{name:<{width}}  {_line(answer, network.classes, top)}")
            rows.append([name, *answer.probabilities, answer.unsure])
            if len(shown) < MOST_ON_SHEET:
                shown[name] = answer
    if table:
        make_folder(table.parent)
        frame = pd.DataFrame(rows, columns=["photo", *network.classes, "unsure"])
        write_text(table, frame.to_csv(index=False, lineterminator="\n"))
    if sheet and shown:
        _write_sheet(sheet, shown, network.classes)
    if unreadable:
        raise UserError(
            f"{len(unreadable):,} of {len(photos):,} photos can't be read, and have no answer: "
            f"{', '.join(f'{name} ({reason})' for name, reason in unreadable.items())}. Replace or convert them."
        )


def _line(answer: Prediction, classes: Sequence[str], top: int) -> str:
    width = max(map(len, classes))
    parts = [f"{classes[index]:<{width}} {answer.probabilities[index]:.3f}" for index in answer.top(top)]
    return "   ".join([*parts, *(["unsure"] if answer.unsure else [])])


def _write_sheet(path: Path, answers: Mapping[str, Prediction], classes: Sequence[str]) -> None:
    from flowerlib import figures

    names = [Path(name).name for name in answers]
    figures.use_report_style([*classes, *names])
    said = [figures.in_lines(" ".join(_line(answer, classes, 1).split()), SIDE) for answer in answers.values()]
    titles = [
        f"{figures.in_lines(name[-LONGEST_NAME:], 2)}\n{words}" for name, words in zip(names, said, strict=True)
    ]
    figure = figures.contact_sheet(np.stack([answer.view for answer in answers.values()]), titles, COLUMNS)
    lines = max(title.count("\n") + 1 for title in titles)
    figure.set_size_inches(SIDE * COLUMNS, -(-len(titles) // COLUMNS) * (SIDE + 0.13 * lines))
    make_folder(path.parent)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
