"""What only a GPU can show. Run these alone with `pytest -m cuda`."""

import gc

import numpy as np
import pytest
import torch
from test_faults import contents, same

from flowerlib.data.photos import load_photos
from flowerlib.errors import UserError
from flowerlib.experiment import Experiment
from flowerlib.runs import read_run
from flowerlib.training import gpu_loader
from flowerlib.training.device import make_reproducible
from flowerlib.training.gpu_loader import GpuLoader, mean_difference, pick_loader
from flowerlib.training.loader import Loader
from flowerlib.training.loop import Computation, train_and_evaluate, train_epoch
from flowerlib.training.model import build_model, load_weights, standardization

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]
CPU, GPU = torch.device("cpu"), torch.device("cuda")
TINY = Experiment(weights="none", image_size=48, batch_size=5, epochs=3, lr_step=1, repeats=2, device="cuda")


@pytest.fixture(autouse=True)
def _as_in_a_session():
    make_reproducible(GPU)


def test_the_views_are_those_of_the_cpu(photo_folder):
    photos = load_photos(str(photo_folder))
    assert isinstance(pick_loader(TINY, photos, GPU), GpuLoader)
    assert mean_difference(GpuLoader(TINY, photos, GPU), GpuLoader(TINY, photos, CPU)) < 0.01


@pytest.mark.parametrize("kind", [Loader, GpuLoader])
def test_the_host_never_waits_inside_an_epoch(photo_folder, monkeypatch, kind):
    monkeypatch.setattr(gpu_loader, "PHOTOS_PER_LAUNCH", TINY.batch_size)  # a launch a batch
    photos = load_photos(str(photo_folder))
    loader = kind(TINY, photos, GPU)
    model = build_model(TINY.model, 3, load_weights("none", TINY.model)).to(GPU, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    computation = Computation(GPU, "bfloat16", standardization(TINY.model))
    seen = []

    def watched():
        for batch in loader.training(np.arange(len(photos)), epoch=1):
            torch.cuda.set_sync_debug_mode("error" if seen else "default")  # the first batch fills caches
            seen.append(len(batch))
            yield batch
        torch.cuda.set_sync_debug_mode("default")  # the pass ends by asking for its loss

    try:
        train_epoch(model, optimizer, watched(), computation)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(seen) == 5


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_two_runs_and_a_resumed_one_are_equal_bit_for_bit(photo_folder, tmp_path, precision):
    photos = load_photos(str(photo_folder))
    experiment = TINY.model_copy(update={"precision": precision})
    for name, epochs in (("one", (3,)), ("other", (3,)), ("resumed", (1, 3))):
        for number in epochs:
            train_and_evaluate(experiment.model_copy(update={"epochs": number}), photos, tmp_path / name)
    assert same(contents(tmp_path / "one"), contents(tmp_path / "other"))
    assert (
        read_run(tmp_path / "one")
        .metrics.drop(columns=["train_seconds", "val_seconds"])
        .equals(read_run(tmp_path / "resumed").metrics.drop(columns=["train_seconds", "val_seconds"]))
    )
    assert read_run(tmp_path / "one").info.device.deterministic


def test_too_little_memory_is_said_with_the_settings_to_lower(photo_folder, tmp_path):
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-4)
    try:
        with pytest.raises(UserError, match="batch_size or image_size"):
            train_and_evaluate(TINY, load_photos(str(photo_folder)), tmp_path / "run")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
