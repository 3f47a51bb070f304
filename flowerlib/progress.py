"""A progress bar in a terminal and in a notebook, silence elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator

from tqdm import tqdm
from tqdm.auto import tqdm as auto_tqdm

# Set by `python -m flowerlib run` for the notebook's kernel, whose own output is no terminal: "terminal" asks
# for a bar of text, which the command line passes on to its terminal; "none" for no bar.
PROGRESS_VARIABLE = "FLOWERLIB_PROGRESS"


class PhotoBar:
    """A bar that counts photos through the passes of an epoch; a context manager."""

    def __init__(self, description: str, photos: int):
        where = os.environ.get(PROGRESS_VARIABLE)
        in_kernel = "ipykernel" in sys.modules
        bar = auto_tqdm if in_kernel and where is None else tqdm
        shown = where == "terminal" or (where is None and (in_kernel or sys.stderr.isatty()))
        self._bar = bar(
            desc=description,
            total=photos,
            unit="photo",
            leave=False,
            mininterval=0.5,
            ncols=None if in_kernel else 90,
            disable=not shown,
        )

    def __enter__(self) -> PhotoBar:
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def over(self, batches: Iterable[tuple]) -> Iterator[tuple]:
        """Pass batches of (images, labels) on, counting their photos."""
        for images, labels in batches:
            yield images, labels
            self._bar.update(len(labels))
