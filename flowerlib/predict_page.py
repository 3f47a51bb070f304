"""The page of predict.ipynb: photos in, answers out, and whatever goes wrong in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display

from flowerlib import figures
from flowerlib.errors import UserError
from flowerlib.files import RUNS, user_path
from flowerlib.predict import Network, find_photos, open_network, predict
from flowerlib.runs import BEST

MOST_SHOWN = 12  # photos at once
TOP = 5  # classes


def predict_page(checkpoint: str | None, folder: str | None) -> None:
    """Show the answers to the photos of a folder, if one is named, and a button that takes more photos.

    Args:
        checkpoint: see `open_network`; None takes the newest best.pt under runs/.
        folder: its first `MOST_SHOWN` photos are shown.
    """
    try:
        network = open_network(user_path(checkpoint) if checkpoint else _newest())
        figures.use_report_style(network.classes)
        if folder:
            _show(network, _photos_in(folder))
    except UserError as error:
        print(f"error: {error}")
    else:
        display(_button(network))


def _newest() -> Path:
    found = max(RUNS.rglob(BEST), key=lambda path: path.stat().st_mtime, default=None)
    if found is None:
        raise UserError(
            f"There is no {BEST} under {RUNS}. Run a session first, or name a checkpoint in this notebook."
        )
    print(f"The network of {found}")
    return found


def _photos_in(folder: str) -> Mapping[str, Callable[[], bytes]]:
    photos, _ = find_photos([str(user_path(folder))])
    if not photos:
        raise UserError(f"There is no photo in the folder {folder}. Name one that holds some.")
    return photos


def _button(network: Network) -> ipywidgets.Widget:
    button = ipywidgets.FileUpload(multiple=True, description="Photos")
    output = ipywidgets.Output()

    def answer(_) -> None:
        output.clear_output()
        with output:
            _show(network, {file["name"]: partial(bytes, file["content"]) for file in button.value})

    button.observe(answer, names="value")
    return ipywidgets.VBox([button, output])


def _show(network: Network, photos: Mapping[str, Callable[[], bytes]]) -> None:
    for name, answer in predict(network, dict(islice(photos.items(), MOST_SHOWN))):
        if isinstance(answer, str):
            print(f"{name} can't be read: {answer}.")
            continue
        top = answer.top(TOP)
        likely = pd.Series(answer.probabilities[top], [network.classes[index] for index in top])
        heat = network.grad_cam(np.stack([answer.view]), top[:1])[0] if network.grad_cam else None
        title = f"{Path(name).name}{' (unsure)' if answer.unsure else ''}"
        figure = figures.answer_figure(title, answer.view, likely, heat)
        display(figure)
        plt.close(figure)  # else the notebook shows it again
    if len(photos) > MOST_SHOWN:
        print(
            f"The first {MOST_SHOWN} of {len(photos):,} photos are shown; .venv/bin/flowerlib predict answers all of "
            "them."
        )
