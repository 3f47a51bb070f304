import dataclasses
import os
import sys
import threading

import numpy as np
import pytest
import torch
from torch import nn

from flowerlib.data import threads
from flowerlib.data.photos import load_photos
from flowerlib.errors import UserError
from flowerlib.experiment import Experiment
from flowerlib.runs import InputInfo
from flowerlib.training import gpu_loader
from flowerlib.training import loader as loader_module
from flowerlib.training.augment import augment
from flowerlib.training.gpu_loader import GpuLoader
from flowerlib.training.loader import Loader
from flowerlib.training.loop import Computation, train_epoch

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
    monkeypatch.setattr(threads, "WORKERS", workers)
    found = gather(Loader(Experiment(**SETTINGS | {"batch_size": batch_size}), photos).augmented(indices, 4))
    assert torch.equal(expected[0], found[0])
    assert torch.equal(expected[1], found[1])


def test_an_error_in_a_thread_reaches_the_user(photo_folder, monkeypatch):
    photos = load_photos(str(photo_folder))
    photos.pixels.file.unlink()
    with pytest.raises(UserError, match=r"aster/0\.jpg can't be read"):
        list(Loader(Experiment(**SETTINGS), photos).clean(np.arange(len(photos))))


@pytest.mark.parametrize("kind", [Loader, lambda *given: GpuLoader(*given, torch.device("cpu"))])
def test_in_training_a_last_batch_of_one_joins_the_batch_before_it(photo_folder, monkeypatch, kind):
    monkeypatch.setattr(gpu_loader, "PHOTOS_PER_LAUNCH", 10)  # the single photo would be alone in its launch
    photos = load_photos(str(photo_folder))
    loader = kind(Experiment(**SETTINGS), photos)
    assert [len(labels) for _, labels in loader.training(np.arange(21), 0)] == [5, 5, 5, 6]
    assert [len(labels) for _, labels in loader.training(np.arange(22), 0)] == [5, 5, 5, 5, 2]
    assert [len(labels) for _, labels in loader.training(np.arange(1), 0)] == [1]
    for evaluation in (loader.clean(np.arange(21)), loader.augmented(np.arange(21), 0)):
        assert [len(labels) for _, labels in evaluation] == [5, 5, 5, 5, 1]


def test_a_network_whose_maps_shrink_to_one_pixel_trains_on_any_number_of_photos(photo_folder):
    photos = load_photos(str(photo_folder))
    network = nn.Sequential(nn.Conv2d(3, 4, 48), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    batches = Loader(Experiment(**SETTINGS), photos).training(np.arange(21), 0)
    loss, _ = train_epoch(network, optimizer, batches, Computation(torch.device("cpu"), "float32", InputInfo()))
    assert np.isfinite(loss)


@pytest.mark.skipif(sys.platform != "linux", reason="priorities belong to processes")
@pytest.mark.parametrize(("device", "expected"), [("cpu", threads.LOWEST_PRIORITY), ("cuda", 0), ("mps", 0)])
def test_loading_threads_give_way_to_a_network_on_the_same_cores_alone(photo_folder, monkeypatch, device, expected):
    monkeypatch.setattr(gpu_loader, "fits", lambda *_: False)
    monkeypatch.setattr(loader_module, "pinned", lambda array, device: torch.from_numpy(array))
    monkeypatch.setattr(loader_module, "send", lambda tensor, device: tensor)
    found = []

    def watched(pixels, augmentation, size):
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return augment(pixels, augmentation, size)

    loader = gpu_loader.pick_loader(Experiment(**SETTINGS), load_photos(str(photo_folder)), torch.device(device))
    list(dataclasses.replace(loader, augment=watched).augmented(np.arange(5), 0))
    assert found == 5 * [expected]


def test_the_cores_are_those_that_the_process_may_use(monkeypatch, tmp_path):
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda process: {2, 3, 5}, raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for limit, expected in (("max 100000", 3), ("150000 100000", 2), ("5000 100000", 1), ("900000 100000", 3)):
        (tmp_path / "cpu.max").write_text(limit)
        monkeypatch.setattr(threads, "CPU_LIMIT", tmp_path / "cpu.max")
        assert threads.usable_cores() == expected
    monkeypatch.setattr(threads, "CPU_LIMIT", tmp_path / "none")
    for share, expected in (("2", 2), ("16", 3), ("0", 1), ("2,1", 3)):
        monkeypatch.setenv("OMP_NUM_THREADS", share)
        assert threads.usable_cores() == expected
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert threads.usable_cores() == 3
