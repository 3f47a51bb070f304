import sys

import pytest
from tqdm import tqdm

from flowerlib.progress import PROGRESS_VARIABLE, counted, progress_bar


@pytest.mark.parametrize(
    ("terminal", "variable", "shown"),
    [(True, None, True), (False, None, False), (False, "terminal", True), (True, "none", False)],
)
def test_a_bar_shows_where_somebody_watches(monkeypatch, terminal, variable, shown):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.delenv(PROGRESS_VARIABLE, raising=False)
    if variable:
        monkeypatch.setenv(PROGRESS_VARIABLE, variable)
    assert progress_bar(total=3).disable is not shown


def test_batches_are_passed_on_and_their_photos_counted(monkeypatch):
    monkeypatch.setenv(PROGRESS_VARIABLE, "terminal")
    batches = [("images", [0, 1, 2]), ("more", [3])]
    with progress_bar(total=4) as bar:
        assert list(counted(batches, bar)) == batches
        assert isinstance(bar, tqdm)
        assert bar.n == 4
