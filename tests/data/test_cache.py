from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from flowerlib import files
from flowerlib.data import photos as dataset
from flowerlib.data.cache import find_cache, new_cache
from flowerlib.data.decoding import KEPT_SIDE
from flowerlib.data.photos import load_photos, photos_for
from flowerlib.errors import UserError
from flowerlib.experiment import Experiment


def fill(name, sizes=((3, 5), (1, 1), (2, 7))):
    random = np.random.default_rng(0)
    photos = [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    with new_cache(name, 800, 0) as writer:
        for pixels in photos:
            writer.append(pixels)
    return photos


def test_photos_come_back_as_they_were():
    photos = fill("a")
    cache = find_cache("a", 800)
    for index in (2, 0, 1, 2):
        np.testing.assert_array_equal(cache.read(index), photos[index])


def test_there_is_no_cache_before_it_is_whole(monkeypatch):
    with pytest.raises(KeyError), new_cache("a", 800, 0) as writer:
        writer.append(np.zeros((2, 2, 3), np.uint8))
        raise KeyError
    assert find_cache("a", 800) is None


@pytest.mark.parametrize("file", ["pixels.u8", "sizes.npy"])
@pytest.mark.parametrize("left", [0, 20])
def test_a_damaged_cache_is_no_cache_and_is_replaced(file, left):
    fill("a")
    path = find_cache("a", 800).file.parent / file
    path.write_bytes(path.read_bytes()[:left])
    assert find_cache("a", 800) is None
    photos = fill("a")
    np.testing.assert_array_equal(find_cache("a", 800).read(1), photos[1])


def test_photos_are_decoded_once_for_all_sessions(photo_folder, monkeypatch):
    first = load_photos(str(photo_folder))
    monkeypatch.setattr(dataset, "decode", None)
    again = load_photos(str(photo_folder))
    np.testing.assert_array_equal(first.read(7), again.read(7))


def test_a_changed_photo_is_decoded_anew(photo_folder):
    before = load_photos(str(photo_folder))
    (photo_folder / before.paths[0]).write_bytes((photo_folder / before.paths[1]).read_bytes())
    after = load_photos(str(photo_folder))
    np.testing.assert_array_equal(after.read(0), before.read(1))


def test_a_cache_that_cannot_be_written_names_the_way_out(photo_folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLOWERLIB_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"Nothing can be written to the folder"):
        load_photos(str(photo_folder))


def large(photo_folder):
    """A photo of a phone's size among the others."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).resize((4000, 3000)).save(photo_folder / "aster/00.jpg")


def test_a_large_photo_is_kept_at_the_size_that_training_can_use(photo_folder):
    large(photo_folder)
    photos = load_photos(str(photo_folder))
    assert photos.read(photos.paths.index("aster/00.jpg")).shape == (800, 1067, 3)
    photos = photos_for(Experiment(data=str(photo_folder), image_size=400))
    assert photos.read(photos.paths.index("aster/00.jpg")).shape == (1400, 1867, 3)


def test_no_photo_of_the_papers_is_made_smaller(flowers_folder, monkeypatch):
    monkeypatch.setenv("FLOWERLIB_DATA", str(flowers_folder))
    sizes = [min(Image.open(path).size) for path in flowers_folder.glob("*/*.jpg")]
    assert len(sizes) == 2848
    assert max(sizes) <= KEPT_SIDE


def test_without_a_cache_the_views_are_the_same_and_nothing_is_kept(photo_folder, tmp_path, monkeypatch):
    large(photo_folder)
    cached = load_photos(str(photo_folder))
    monkeypatch.setenv("FLOWERLIB_CACHE", str(tmp_path / "other"))
    photos = load_photos(str(photo_folder), cache=False)
    assert all(np.array_equal(photos.read(index), cached.read(index)) for index in range(len(photos)))
    assert not list(tmp_path.glob("other/*/"))
    (photo_folder / "broom/0.jpg").write_text("no photo")
    with pytest.raises(UserError, match=r"broom/0.jpg can't be read .* any more"):
        photos.read(photos.paths.index("broom/0.jpg"))
    with pytest.raises(UserError, match="1 of 25 photos can't be read"):
        load_photos(str(photo_folder), cache=False)


def test_a_disk_without_room_is_noticed_before_anything_is_decoded(photo_folder, monkeypatch):
    large(photo_folder)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2_500_000))
    monkeypatch.setattr(dataset, "decode", None)
    with pytest.raises(UserError, match=r"0\.00 GB free, and 0\.00 GB are needed .* FLOWERLIB_CACHE .* cache=false"):
        load_photos(str(photo_folder))
