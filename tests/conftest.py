"""What several tests share: small photos, and the real ones where this machine has them."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

# read before every test's environment is cleared
OUTSIDE = {name: os.environ.get(name) for name in ("FLOWERLIB_DATA", "FLOWERLIB_WEIGHTS")}
settings.register_profile("default", max_examples=400, deadline=None, derandomize=True)  # the same cases on every run
settings.load_profile("default")

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts them with & would have it ignored

CLASSES = ("aster", "broom", "clover")
PHOTOS_PER_CLASS = 8


@pytest.fixture(autouse=True)
def _same_environment_everywhere(monkeypatch, tmp_path_factory, request):
    for name in OUTSIDE:
        monkeypatch.delenv(name, raising=False)
    if "flowers_folder" in request.fixturenames:  # decoded once, by all processes that run tests
        base = tmp_path_factory.getbasetemp()
        cache = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "flowers-cache"
    else:
        cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FLOWERLIB_CACHE", str(cache))


@pytest.fixture(scope="session")
def flowers_folder() -> Path:
    """The paper's photos."""
    return _outside("FLOWERLIB_DATA")


@pytest.fixture(scope="session")
def weights_folder() -> Path:
    """The folder of resnet18.pth and resnet34.pth."""
    return _outside("FLOWERLIB_WEIGHTS")


@pytest.fixture
def photo_folder(tmp_path) -> Path:
    """Three classes of eight photos of noise each, 48 to 80 pixels a side; a folder of its own to every test."""
    random = np.random.default_rng(0)
    for name in CLASSES:
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for index in range(PHOTOS_PER_CLASS):
            sides = random.integers(48, 81, size=2)
            Image.fromarray(random.integers(0, 256, (*sides, 3), np.uint8)).save(folder / f"{index}.jpg")
    return tmp_path / "photos"


def _outside(name: str) -> Path:
    if not OUTSIDE[name]:
        pytest.skip(f"set {name} to run this on the real files")
    return Path(OUTSIDE[name]).resolve()
