import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional as F

from flowerlib.data.crop import centre_crop
from flowerlib.data.photos import load_photos
from flowerlib.experiment import Experiment
from flowerlib.runs import InputInfo
from flowerlib.training.augment import (
    DRAWS,
    Augmentation,
    augment,
    augment_reference,
    draw_augmentation,
    normalize,
)

SIZES = [(320, 240), (240, 320), (97, 641), (64, 64), (239, 500), (400, 187)]
STILL = Experiment(
    random_crop=False, flip=0, rotation=0, brightness=0, contrast=0, saturation=0, hue=0, translation=0, image_size=64
)


def noise(width, height, seed=0):
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (9, 9, 3), np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def draws():
    """Augmentations of 4,000 photos of 320 x 240 pixels."""
    return [draw_augmentation(Experiment(), 0, index, 320, 240) for index in range(4000)]


def test_a_draw_depends_on_seed_epoch_and_index_alone():
    draw = draw_augmentation(Experiment(), 3, 14, 320, 240)
    assert draw == draw_augmentation(Experiment(batch_size=64, model="resnet34"), 3, 14, 320, 240)
    others = [(Experiment(seed=1), 3, 14), (Experiment(), 4, 14), (Experiment(), 3, 15)]
    assert all(draw != draw_augmentation(*key, 320, 240) for key in others)


def test_leaving_one_operation_out_changes_no_other_draw():
    whole = draw_augmentation(Experiment(), 3, 14, 320, 240)
    fields = {"random_crop": "crop", "flip": "flip", "rotation": "angle", "translation": "shift"}
    for name in ("random_crop", "flip", "rotation", "brightness", "contrast", "saturation", "hue", "translation"):
        left_out = Experiment(**{name: False if name == "random_crop" else 0})
        draw = draw_augmentation(left_out, 3, 14, 320, 240)
        if name in fields:
            draw = dataclasses.replace(draw, **{fields[name]: getattr(whole, fields[name])})
            assert draw == whole, name
        else:
            assert dataclasses.replace(draw, jitter=()) == dataclasses.replace(whole, jitter=()), name
            assert draw.jitter == tuple(each for each in whole.jitter if each[0] != name)


def test_the_draws_are_those_of_their_version():
    # whoever changes them, or what they are drawn for, counts DRAWS up, so that no session goes on with a mixture
    assert DRAWS == 3
    assert draw_augmentation(Experiment(), 3, 14, 320, 240) == Augmentation(
        crop=(17, 104, 215, 182),
        flip=False,
        angle=-12.046950362058055,
        jitter=(
            ("hue", 0.046145595373606074),
            ("contrast", 1.0525080317007252),
            ("brightness", 1.1246314772435158),
            ("saturation", 0.9733940231411041),
        ),
        shift=(-8, 20),
    )


def test_crops_are_distributed_as_torchvisions(draws):
    def shape(top, left, height, width):
        return height * width / (320 * 240), width / height, (top + height / 2) / 240, (left + width / 2) / 320

    torch.manual_seed(0)
    photo = Image.new("RGB", (320, 240))
    theirs = [transforms.RandomResizedCrop.get_params(photo, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(len(draws))]
    ours, theirs = (np.array([shape(*crop) for crop in crops]) for crops in ([d.crop for d in draws], theirs))
    # the largest gap between the distribution functions; 4,000 against 4,000: .038 would be 1 in 200
    for column in range(ours.shape[1]):
        both = np.sort(np.concatenate([ours[:, column], theirs[:, column]]))
        gap = [np.searchsorted(np.sort(side[:, column]), both, "right") / len(side) for side in (ours, theirs)]
        assert np.abs(gap[0] - gap[1]).max() < 0.05


def test_the_other_draws_have_the_papers_ranges(draws):
    assert np.mean([draw.flip for draw in draws]) == pytest.approx(0.1, abs=0.02)
    ranges = {"brightness": (0.8, 1.2), "contrast": (0.8, 1.2), "saturation": (0.8, 1.2), "hue": (-0.1, 0.1)}
    values = {name: [dict(draw.jitter)[name] for draw in draws] for name in ranges}
    values |= {"angle": [draw.angle for draw in draws]}
    values |= {side: [draw.shift[side] for draw in draws] for side in (0, 1)}
    for name, (low, high) in (ranges | {"angle": (-30, 30), 0: (-22.4, 22.4), 1: (-22.4, 22.4)}).items():
        spread = high - low
        assert low <= min(values[name]) < low + 0.03 * spread, name
        assert high - 0.03 * spread < max(values[name]) <= high, name
        assert np.mean(values[name]) == pytest.approx((low + high) / 2, abs=0.03 * spread), name


def test_the_jitters_come_in_every_order(draws):
    orders = Counter(tuple(name for name, _ in draw.jitter) for draw in draws)
    assert len(orders) == math.factorial(4)
    assert max(orders.values()) < 2 * min(orders.values())


@pytest.mark.parametrize("size", [*SIZES, (1, 1), (2000, 3), (3, 2000)])
def test_crops_lie_within_the_photo(size):
    width, height = size
    for index in range(50):
        top, left, crop_height, crop_width = draw_augmentation(Experiment(), 0, index, width, height).crop
        assert top >= 0
        assert left >= 0
        assert crop_height >= 1 <= crop_width
        assert top + crop_height <= height
        assert left + crop_width <= width


def test_the_operations_act_in_the_papers_order():
    draw = dataclasses.replace(draw_augmentation(Experiment(image_size=64), 0, 5, 320, 240), flip=True, shift=(5, -3))
    photo = noise(320, 240)
    top, left, height, width = draw.crop
    expected = photo.crop((left, top, left + width, top + height)).resize((64, 64), Image.Resampling.BILINEAR)
    expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT).rotate(draw.angle)
    adjust = {
        "brightness": F.adjust_brightness,
        "contrast": F.adjust_contrast,
        "saturation": F.adjust_saturation,
        "hue": F.adjust_hue,
    }
    for name, amount in draw.jitter:
        expected = adjust[name](expected, amount)
    shifted = np.zeros((64, 64, 3), np.uint8)
    shifted[:-3, 5:] = np.asarray(expected)[3:, :-5]
    np.testing.assert_array_equal(augment_reference(np.asarray(photo), draw, 64), shifted)


def assert_alike(photo, draw, size):
    """The fast way and the reference differ by a few grey levels, and by more only at a few edges."""
    fast, reference = (np.asarray(way(photo, draw, size), float) for way in (augment, augment_reference))
    difference = np.abs(fast - reference)
    # Pillow's hue has 255 steps and is cut off; each of the two then goes through up to three more roundings
    assert difference.mean() < 2.5
    assert np.quantile(difference, 0.98) <= 16
    assert abs((fast - reference).mean()) < 1.5


@given(
    width=st.integers(20, 400),
    height=st.integers(20, 400),
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([48, 96, 224]),
)
@settings(max_examples=150, deadline=None)
def test_the_fast_way_agrees_with_the_reference(width, height, seed, size):
    draw = draw_augmentation(Experiment(seed=seed, image_size=size, flip=0.5), 0, 0, width, height)
    assert_alike(np.array(noise(width, height, seed)), draw, size)


@pytest.mark.parametrize("name", ["random_crop", "flip", "rotation", "brightness", "contrast", "saturation", "hue"])
def test_each_operation_agrees_with_the_reference_alone(name):
    alone = STILL.model_copy(update={name: getattr(Experiment(), name) or True, "image_size": 96})
    alone = alone.model_copy(update={"flip": 1.0}) if name == "flip" else alone
    for index in range(20):
        assert_alike(np.array(noise(320, 240, index)), draw_augmentation(alone, 0, index, 320, 240), 96)


def test_the_fast_way_agrees_on_the_real_photos(flowers_folder, monkeypatch):
    monkeypatch.setenv("FLOWERLIB_DATA", str(flowers_folder))
    photos = load_photos("flowers")
    for index in range(0, len(photos), 29):
        pixels = photos.read(index)
        height, width, _ = pixels.shape
        assert_alike(pixels, draw_augmentation(Experiment(), 1, index, width, height), 224)


@pytest.mark.parametrize("size", SIZES)
def test_everything_off_is_the_clean_view(size):
    photo = np.array(noise(*size))
    draw = draw_augmentation(STILL, 0, 0, *size)
    np.testing.assert_array_equal(augment(photo, draw, 64), centre_crop(photo, 64))
    np.testing.assert_array_equal(augment_reference(photo, draw, 64), centre_crop(photo, 64))


@pytest.mark.parametrize("side", [224, 96, 64])
@pytest.mark.parametrize("size", SIZES)
def test_the_clean_view_is_torchvisions(size, side):
    theirs = transforms.Compose([transforms.Resize(round(side * 256 / 224)), transforms.CenterCrop(side)])
    photo = noise(*size)
    difference = np.asarray(theirs(photo)).astype(int) - centre_crop(np.asarray(photo), side)
    assert np.abs(difference).max() <= 1


def test_the_clean_view_of_a_very_long_photo():
    assert centre_crop(np.array(noise(20_000, 10)), 64).shape == (64, 64, 3)


@pytest.mark.parametrize("standardization", [InputInfo(), InputInfo(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))])
def test_normalize_is_to_tensor_and_normalize(standardization):
    image = noise(32, 24)
    theirs = F.normalize(F.to_tensor(image), standardization.mean, standardization.std)
    ours = normalize(torch.from_numpy(np.array(image))[None], standardization)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours[0], theirs, atol=1e-5, rtol=0)
