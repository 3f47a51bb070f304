import numpy as np
import pytest
import torch

from flowerlib.data import threads
from flowerlib.data.photos import load_photos
from flowerlib.errors import UserError
from flowerlib.experiment import Experiment
from flowerlib.training.loader import Loader

SETTINGS = {"image_size": 48, "batch_size": 5}


def gather(batches):
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def test_every_photo_comes_once_with_its_label_in_an_order_of_the_epochs_own(photo_folder):
    photos = load_photos(str(photo_folder))
    indices = np.arange(3, len(photos))
    orders = []
    for epoch in (0, 1):
        _, labels = gather(Loader(Experiment(**SETTINGS), photos).training(indices, epoch))
        assert sorted(labels) == sorted(photos.labels[indices])
        orders.append(labels.tolist())
    assert orders[0] != orders[1]


def test_batches_have_the_size_asked_for_and_the_rest_comes_last(photo_folder):
    photos = load_photos(str(photo_folder))
    shapes = [images.shape for images, _ in Loader(Experiment(**SETTINGS), photos).clean(np.arange(12))]
    assert shapes == [(5, 48, 48, 3), (5, 48, 48, 3), (2, 48, 48, 3)]


@pytest.mark.parametrize(("workers", "batch_size"), [(1, 5), (5, 5), (2, 7)])
def test_neither_threads_nor_batches_change_a_view(photo_folder, monkeypatch, workers, batch_size):
    photos = load_photos(str(photo_folder))
    indices = np.arange(len(photos))
    expected = gather(Loader(Experiment(**SETTINGS), photos).augmented(indices, 4))
    monkeypatch.setattr(threads.in_threads, "__defaults__", (workers,))
    found = gather(Loader(Experiment(**SETTINGS | {"batch_size": batch_size}), photos).augmented(indices, 4))
    assert torch.equal(expected[0], found[0])
    assert torch.equal(expected[1], found[1])


def test_an_error_in_a_thread_reaches_the_user(photo_folder, monkeypatch):
    photos = load_photos(str(photo_folder))
    photos.pixels.file.unlink()
    with pytest.raises(UserError, match=r"aster/0\.jpg can't be read"):
        list(Loader(Experiment(**SETTINGS), photos).clean(np.arange(len(photos))))
