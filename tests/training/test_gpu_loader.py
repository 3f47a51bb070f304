import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flowerlib.data.crop import centre_crop
from flowerlib.data.photos import load_photos
from flowerlib.experiment import Experiment
from flowerlib.training import gpu_loader
from flowerlib.training.augment import augment_reference, draw_augmentation
from flowerlib.training.gpu_loader import (
    CENTRE,
    GpuLoader,
    Views,
    augment_batch,
    crop_batch,
    fits,
    mean_difference,
    pack,
    pick_loader,
)
from flowerlib.training.loader import Loader

CPU = torch.device("cpu")
SETTINGS = {"image_size": 48, "batch_size": 5}
OFF = dict.fromkeys(("flip", "rotation", "brightness", "contrast", "saturation", "hue", "translation"), 0.0)
STILL = Experiment(random_crop=False, **OFF)
SIZES = [(320, 240), (240, 320), (97, 641), (64, 64), (1, 1), (3, 700)]


def noise(width, height, seed=0):
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (9, 9, 3), np.uint8))
    return np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))


def views_of(photos, draws, size, make=augment_batch):
    """The views of photos in one batch, from a cache that holds them one after the other."""
    sizes = np.array([photo.shape[:2] for photo in photos], np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes.prod(axis=1) * 3)[:-1]])
    packed = pack(draws, starts, sizes, size)
    pixels = torch.from_numpy(np.concatenate([photo.reshape(-1, 3) for photo in photos]))
    views = Views(*(torch.from_numpy(column) for column in packed))
    images = make(pixels, views, packed.windows.max(axis=0).tolist(), size)
    assert images.dtype == torch.uint8
    return images.numpy()


def assert_close(images, others, mean, high):
    """Bounds on each image's difference in grey levels: its mean, all but the 2 % highest, and the bias."""
    for image, other in zip(images.astype(float), others, strict=True):
        difference = np.abs(image - other)
        assert difference.mean() < mean
        assert np.quantile(difference, 0.98) <= high
        assert abs((image - other).mean()) < mean / 2


def assert_as_the_reference(photos, draws, size):
    expected = [augment_reference(photo, draw, size) for photo, draw in zip(photos, draws, strict=True)]
    # filtered values that end in .5 are rounded to either side, and what follows enlarges that
    assert_close(views_of(photos, draws, size), expected, mean=0.5, high=4)


def gather(batches):
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


@given(
    sizes=st.lists(st.tuples(st.integers(20, 400), st.integers(20, 400)), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([48, 96, 224]),
)
@settings(max_examples=40, deadline=None)
def test_a_batch_agrees_with_the_reference(sizes, seed, size):
    experiment = Experiment(seed=seed, image_size=size, flip=0.5)
    photos = [noise(*sides, seed + index) for index, sides in enumerate(sizes)]
    draws = [draw_augmentation(experiment, 0, index, *sides) for index, sides in enumerate(sizes)]
    assert_as_the_reference(photos, draws, size)


@pytest.mark.parametrize("name", ["random_crop", *OFF])
def test_each_operation_agrees_with_the_reference_alone(name):
    value = 1.0 if name == "flip" else getattr(Experiment(), name)
    alone = STILL.model_copy(update={name: value, "image_size": 96})
    draws = [draw_augmentation(alone, 0, index, 320, 240) for index in range(20)]
    assert_as_the_reference([noise(320, 240, index) for index in range(20)], draws, 96)


def test_what_follows_the_crop_is_pillows_to_the_level():
    size, count = 96, 60
    moving = Experiment(image_size=size, flip=0.5)
    photos = [noise(size, size, index) for index in range(count)]
    draws = [draw_augmentation(moving, 0, index, size, size) for index in range(count)]
    draws = [dataclasses.replace(draw, crop=(0, 0, size, size)) for draw in draws]
    expected = np.stack([augment_reference(photo, draw, size) for photo, draw in zip(photos, draws, strict=True)])
    # way back from the hue, a few colours lie on the edge between two levels
    assert (views_of(photos, draws, size) != expected).mean() < 2e-5


def test_photos_of_one_batch_may_have_different_operations():
    moving, photos = Experiment(image_size=64), [noise(*size) for size in SIZES]
    draws = [draw_augmentation(moving, 0, index, *size) for index, size in enumerate(SIZES)]
    draws[::2] = [CENTRE] * 3
    draws[1] = dataclasses.replace(draws[1], crop=None, jitter=draws[1].jitter[:2])
    assert_as_the_reference(photos, draws, 64)


def test_the_views_of_the_real_photos_agree_with_the_reference(flowers_folder, monkeypatch):
    monkeypatch.setenv("FLOWERLIB_DATA", str(flowers_folder))
    folder = load_photos("flowers")
    photos = [folder.read(index) for index in range(0, len(folder), 97)]
    sides = [photo.shape[1::-1] for photo in photos]
    draws = [draw_augmentation(Experiment(), 1, index, *size) for index, size in enumerate(sides)]
    assert_as_the_reference(photos, draws, 224)


@pytest.mark.parametrize("side", [224, 64])
def test_the_clean_views_are_centre_crops(side):
    photos = [noise(*size) for size in SIZES]
    images = views_of(photos, [CENTRE] * len(photos), side, crop_batch)
    for image, photo in zip(images, photos, strict=True):
        assert np.abs(image.astype(int) - centre_crop(photo, side)).max() <= 1
    # nothing else is done to them
    np.testing.assert_array_equal(views_of(photos, [CENTRE] * len(photos), side), images)


def test_the_clean_view_reads_the_middle_of_a_very_long_photo():
    views = pack([CENTRE], np.array([0]), np.array([[10, 20_000]]), 64)
    assert views.windows.max() <= 12


@pytest.mark.parametrize("changes", [{}, {"random_crop": False}, {"random_crop": False, **OFF}, {"hue": 0.0}])
def test_batches_are_those_of_the_other_loader(photo_folder, changes):
    photos = load_photos(str(photo_folder))
    experiment = Experiment(**SETTINGS | changes)
    ours, theirs = GpuLoader(experiment, photos, CPU), Loader(experiment, photos)
    indices = np.arange(3, len(photos))[::-1].copy()
    for name, key in (("training", (indices, 2)), ("augmented", (indices, 2)), ("clean", (indices,))):
        found, expected = list(getattr(ours, name)(*key)), list(getattr(theirs, name)(*key))
        assert [images.shape for images, _ in found] == [images.shape for images, _ in expected]
        (images, labels), (others, same) = gather(found), gather(expected)
        assert torch.equal(labels, same)
        assert labels.dtype == torch.int64
        assert_close(images.numpy(), others.numpy(), mean=2.5, high=16)


@pytest.mark.parametrize(("batch_size", "at_once", "pixels"), [(5, 1, 10**9), (7, 14, 10**9), (24, 128, 15_000)])
def test_the_batch_size_changes_nothing(photo_folder, monkeypatch, batch_size, at_once, pixels):
    photos = load_photos(str(photo_folder))
    indices = np.arange(len(photos))
    expected = gather(GpuLoader(Experiment(**SETTINGS), photos, CPU).augmented(indices, 4))
    monkeypatch.setattr(gpu_loader, "PHOTOS_PER_LAUNCH", at_once)
    monkeypatch.setattr(gpu_loader, "PIXELS_PER_LAUNCH", pixels)
    experiment = Experiment(**SETTINGS | {"batch_size": batch_size})
    batches = list(GpuLoader(experiment, photos, CPU).augmented(indices, 4))
    assert {len(images) for images, _ in batches[:-1]} <= {batch_size}
    images, labels = gather(batches)
    assert torch.equal(images, expected[0])
    assert torch.equal(labels, expected[1])


def test_padding_changes_nothing():
    random = np.random.default_rng(0)
    pixels = torch.from_numpy(random.integers(0, 256, (6 * 320 * 240, 3), np.uint8))
    draws = [draw_augmentation(Experiment(), 0, index, 320, 240) for index in range(6)]
    packed = pack(draws, np.arange(6) * 320 * 240 * 3, np.tile([240, 320], (6, 1)), 224)
    views, padded = Views(*(torch.from_numpy(column) for column in packed)), packed.windows.max(axis=0)
    expected = crop_batch(pixels, views, padded.tolist(), 224)
    # sums are taken in another order: without exact ones a few levels differ
    for more in (1, 13, 37, 61):
        assert torch.equal(crop_batch(pixels, views, (padded + more).tolist(), 224), expected)


def test_the_networks_precision_changes_nothing(photo_folder):
    photos = load_photos(str(photo_folder))
    loader = GpuLoader(Experiment(**SETTINGS), photos, CPU)
    expected, _ = gather(loader.clean(np.arange(len(photos))))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        images, _ = gather(loader.clean(np.arange(len(photos))))
    assert torch.equal(images, expected)


class NeverWaits(TorchDispatchMode):
    """Fails where the host would wait for a copy; allows what is sent ahead from pinned memory."""

    def __init__(self):
        super().__init__()
        self.pinned = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.ops.aten._pin_memory.default:  # needs a GPU, and has no fake
            self.pinned.append(args[0])
            return args[0]
        result = function(*args, **kwargs)
        leaves = tree_leaves((args, kwargs, result))
        if len({leaf.device for leaf in leaves if isinstance(leaf, torch.Tensor)}) > 1:
            assert function is torch.ops.aten._to_copy.default, f"{function} between devices"
            assert kwargs["device"].type == "cuda", "copied to the host"
            assert kwargs.get("non_blocking"), "the host waits for a copy"
            assert any(args[0] is tensor for tensor in self.pinned), "copied from pageable memory"
            assert args[0].is_contiguous(), "copied in pieces"
        return result


def test_the_host_never_waits_for_the_device(photo_folder):
    photos = load_photos(str(photo_folder))
    indices, epoch = np.arange(len(photos)), 0
    with FakeTensorMode():  # a GPU without numbers: whoever asks for one gets an exception
        loader = GpuLoader(Experiment(**SETTINGS), photos, torch.device("cuda"))
        with NeverWaits():
            for batches in (loader.training(indices, epoch), loader.clean(indices), loader.augmented(indices, epoch)):
                images, labels = gather(batches)
                assert images.shape == (len(photos), 48, 48, 3)
                assert images.device.type == labels.device.type == "cuda"


@pytest.mark.parametrize(
    ("waits", "error"),
    [
        (lambda levels: levels.sum().item(), DataDependentOutputException),
        (lambda levels: levels[levels > 1], DynamicOutputShapeException),
        (lambda levels: levels.nonzero(), DynamicOutputShapeException),
        (lambda levels: levels[torch.arange(2)], AssertionError),
        (lambda levels: levels.cpu(), AssertionError),
        (lambda levels: levels * torch.tensor([1, 2, 3], device="cuda"), AssertionError),
        (lambda levels: torch.arange(3).to("cuda", non_blocking=True), AssertionError),
        (lambda levels: torch.arange(3).pin_memory().to("cuda"), AssertionError),
    ],
)
def test_the_guard_against_waiting_notices(waits, error):
    with FakeTensorMode(), NeverWaits():
        levels = torch.arange(3, device="cuda")
        with pytest.raises(error):
            waits(levels)


def test_photos_stay_on_a_gpu_that_has_room(photo_folder, monkeypatch):
    photos, experiment, gpu = load_photos(str(photo_folder)), Experiment(**SETTINGS), torch.device("cuda")
    for free, expected in ((4 * 10**9, True), (2 * 10**9, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 2 * free))
        assert fits(experiment, photos, gpu) is expected
    assert not fits(experiment, photos, CPU)
    assert type(pick_loader(experiment, photos, CPU)) is Loader
    monkeypatch.setattr(gpu_loader, "fits", lambda *_: True)
    assert type(pick_loader(experiment, photos, CPU)) is GpuLoader


def test_one_large_photo_neither_keeps_the_others_off_a_gpu_nor_is_padded_to(photo_folder, monkeypatch):
    photos = load_photos(str(photo_folder))
    large = dataclasses.replace(photos.pixels, sizes=np.vstack([photos.pixels.sizes[1:], [[800, 9000]]]))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * 10**9, 8 * 10**9))
    assert fits(Experiment(**SETTINGS), dataclasses.replace(photos, pixels=large), torch.device("cuda"))
    sizes = np.array([[300, 300]] * 100 + [[800, 9000]] + [[300, 300]] * 27)
    draws = [dataclasses.replace(CENTRE, crop=(0, 0, *size)) for size in sizes.tolist()]
    launches = list(gpu_loader._launches(pack(draws, np.zeros(128, np.int64), sizes, 48), 48))
    assert sum(len(views.windows) for views in launches) == 128
    assert all(
        len(views.windows) * views.windows.max(axis=0).prod() <= gpu_loader.PIXELS_PER_LAUNCH for views in launches
    )
    assert len(launches) < 10


def test_a_device_that_computes_other_views_is_said_and_not_used(photo_folder, monkeypatch, capsys):
    photos, experiment = load_photos(str(photo_folder)), Experiment(**SETTINGS)
    monkeypatch.setattr(gpu_loader, "fits", lambda *_: True)
    right = GpuLoader(experiment, photos, CPU)
    wrong = GpuLoader(experiment.model_copy(update={"hue": 0.0}), photos, CPU)
    assert mean_difference(right, right) == 0
    difference = mean_difference(wrong, right)
    monkeypatch.setattr(gpu_loader, "mean_difference", lambda *_: difference)
    assert type(pick_loader(experiment, photos, CPU)) is Loader
    assert f"by {difference:.1f} grey levels" in capsys.readouterr().out
