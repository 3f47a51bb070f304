"""A progress bar in a terminal and in a notebook, silence elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator

from tqdm import tqdm
from tqdm.auto import tqdm as notebook_tqdm

# Set by `flowerlib run` for the notebook's kernel, whose own output is no terminal: "terminal" asks
# for a bar of text, which the command line passes on to its terminal; "none" for no bar.
PROGRESS_VARIABLE = "FLOWERLIB_PROGRESS"


def progress_bar(items: Iterable | None = None, **options) -> tqdm:
    """A tqdm bar where somebody watches: a widget in a notebook, text in a terminal, else nothing."""
    where = os.environ.get(PROGRESS_VARIABLE)
    in_notebook = where is None and _in_notebook()
    watched = in_notebook or where == "terminal" or (where is None and sys.stderr.isatty())
    # a kernel run by the command line doesn't know how wide its terminal is
    width = 90 if where == "terminal" else None
    bar = notebook_tqdm if in_notebook else tqdm
    return bar(items, leave=False, mininterval=0.5, ncols=width, disable=not watched, **options)


def _in_notebook() -> bool:
    # whoever imports papermill imports IPython too; only a kernel has a shell with a kernel's settings
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and "IPKernelApp" in shell.config


def counted(batches: Iterable[tuple], bar: tqdm) -> Iterator[tuple]:
    """Pass batches of (images, labels) on, counting their photos."""
    for images, labels in batches:
        yield images, labels
        bar.update(len(labels))
