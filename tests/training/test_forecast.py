import re

import pytest
import torch

from flowerlib.data import photos as photos_module
from flowerlib.data.photos import load_photos
from flowerlib.data.split import split_photos
from flowerlib.errors import UserError
from flowerlib.experiment import Experiment
from flowerlib.training import forecast
from flowerlib.training.forecast import describe_downloads, describe_duration
from flowerlib.training.loop import train_and_evaluate

TINY = {"weights": "none", "image_size": 40, "batch_size": 7, "device": "cpu", "precision": "float32"}


@pytest.fixture
def photos(photo_folder, monkeypatch):
    monkeypatch.setattr(forecast, "SECONDS", 0.1)
    return load_photos(str(photo_folder))


@pytest.fixture
def parts(photos):
    return split_photos(photos, Experiment())


def test_the_time_of_a_session_is_the_sum_of_its_passes(photos, parts, tmp_path, monkeypatch):
    monkeypatch.setattr(forecast, "_seconds_per_photo", lambda *_: (2.0, 1.0))
    said = describe_duration(Experiment(**TINY, epochs=3, repeats=4), photos, parts, tmp_path)
    assert "An epoch takes about 48 seconds" in said  # 19 photos in training, twice 5 in validation
    assert "3 epochs and 4 evaluations" in said
    assert f"takes about {(3 * 48 + 4 * 5) / 60:.0f} minutes" in said


def test_what_is_done_takes_no_more_time(photos, parts, tmp_path, monkeypatch):
    train_and_evaluate(Experiment(**TINY, epochs=1, repeats=0), photos, tmp_path)
    more = describe_duration(Experiment(**TINY, epochs=3, repeats=0), photos, parts, tmp_path)
    assert "2 epochs" in more
    monkeypatch.setattr(forecast, "_seconds_per_photo", lambda *_: pytest.fail("it would be timed"))
    done = describe_duration(Experiment(**TINY, epochs=1, repeats=0), photos, parts, tmp_path)
    assert "nothing is left" in done


@pytest.mark.parametrize(
    "settings", [{}, {"freeze": True}, {"model": "efficientnet_lite0"}, {"learning_rate": 1e30, "batch_size": 100}]
)
def test_an_estimate_changes_nothing_in_the_session_after_it(photos, parts, tmp_path, settings):
    timed = Experiment(**(TINY | settings), epochs=1, repeats=1)
    said = describe_duration(timed, photos, parts, tmp_path)
    assert float(re.search(r"An epoch takes about ([\d.]+) seconds", said)[1]) > 0
    experiment = timed.model_copy(update={"learning_rate": 0.01})
    after = train_and_evaluate(experiment, photos, tmp_path / "after")
    torch.manual_seed(99)
    alone = train_and_evaluate(experiment, photos, tmp_path / "alone")
    columns = ["train_loss", "val_loss", "val_aug_loss"]
    assert after.metrics[columns].equals(alone.metrics[columns])
    assert after.predictions.equals(alone.predictions)


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
    assert "about" not in describe_downloads(Experiment())
