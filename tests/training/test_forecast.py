import numpy as np
import pytest
import torch

from flowerlib.data import photos as photos_module
from flowerlib.data.photos import load_photos
from flowerlib.data.split import Split
from flowerlib.errors import UserError
from flowerlib.experiment import Experiment
from flowerlib.training import forecast
from flowerlib.training.forecast import describe_downloads, with_forecast
from flowerlib.training.loop import train_and_evaluate

TINY = {"weights": "none", "image_size": 40, "batch_size": 7, "device": "cpu", "precision": "float32"}


PARTS = Split(np.arange(80), np.arange(20), np.arange(0), "")


@pytest.mark.parametrize("freeze", [False, True])
def test_the_time_of_a_session_is_the_sum_of_its_passes(monkeypatch, capsys, freeze):
    evaluation = 20 if freeze else 20 / 3  # a backward pass takes twice a forward pass
    epoch = 80 + 2 * evaluation
    left = 3 * epoch + 4 * evaluation
    clock = iter((0.0, 10.0))  # for five batches of two photos: a second a photo
    monkeypatch.setattr(forecast, "perf_counter", lambda: next(clock))
    batches = [(torch.zeros(2, 1), torch.zeros(2)) for _ in range(7)]
    passed = list(with_forecast(iter(batches), Experiment(freeze=freeze, repeats=4), PARTS, epochs_left=3))
    assert all(mine is yours for pair in zip(passed, batches, strict=True) for mine, yours in zip(*pair, strict=True))
    said = capsys.readouterr().out
    assert (f"takes about {epoch / 60:.0f} minutes" if freeze else f"takes about {epoch:.0f} seconds") in said
    assert f"the rest of the session about {left / 60:.0f} minutes" in said


def test_a_session_says_once_how_long_it_will_take(photo_folder, tmp_path, capsys):
    experiment = Experiment(**TINY | {"batch_size": 2}, epochs=3, repeats=1)
    train_and_evaluate(experiment, load_photos(str(photo_folder)), tmp_path)
    assert capsys.readouterr().out.count("Judging by its first batches") == 1


def test_it_is_said_what_will_be_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(photos_module, "DATA", tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert describe_downloads(Experiment()) == ("Photos: about 155 MB to download. Weights: about 45 MB to download.")
    nothing = "Photos: nothing to download. Weights: nothing to download."
    assert describe_downloads(Experiment(data="synthetic", weights="none")) == nothing
    assert describe_downloads(Experiment(data=str(tmp_path), model="efficientnet_lite0")) == nothing
    (tmp_path / "flowers").mkdir()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet18-f37072fd.pth").touch()
    assert describe_downloads(Experiment()) == nothing
    with pytest.raises(UserError, match="Did you mean 'resnet18'"):
        describe_downloads(Experiment(model="resnet19"))


def test_files_that_are_named_are_not_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(photos_module, "DATA", tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setenv("FLOWERLIB_DATA", str(tmp_path))
    monkeypatch.setenv("FLOWERLIB_WEIGHTS", str(tmp_path))
    (tmp_path / "resnet18.pth").touch()
    assert "about" not in describe_downloads(Experiment())
