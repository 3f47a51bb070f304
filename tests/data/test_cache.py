import numpy as np
import pytest

from flowerlib.data import photos as dataset
from flowerlib.data.cache import find_cache, new_cache
from flowerlib.data.photos import load_photos
from flowerlib.errors import UserError


def fill(name, sizes=((3, 5), (1, 1), (2, 7))):
    random = np.random.default_rng(0)
    photos = [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    with new_cache(name) as writer:
        for pixels in photos:
            writer.append(pixels)
    return photos


def test_photos_come_back_as_they_were():
    photos = fill("a")
    cache = find_cache("a")
    for index in (2, 0, 1, 2):
        np.testing.assert_array_equal(cache.read(index), photos[index])


def test_there_is_no_cache_before_it_is_whole(monkeypatch):
    with pytest.raises(KeyError), new_cache("a") as writer:
        writer.append(np.zeros((2, 2, 3), np.uint8))
        raise KeyError
    assert find_cache("a") is None


@pytest.mark.parametrize("file", ["pixels.u8", "sizes.npy"])
@pytest.mark.parametrize("left", [0, 20])
def test_a_damaged_cache_is_no_cache_and_is_replaced(file, left):
    fill("a")
    path = find_cache("a").file.parent / file
    path.write_bytes(path.read_bytes()[:left])
    assert find_cache("a") is None
    photos = fill("a")
    np.testing.assert_array_equal(find_cache("a").read(1), photos[1])


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
