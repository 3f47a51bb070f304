import numpy as np
import pytest
from PIL import Image

from flowerlib.data import synthetic
from flowerlib.data.synthetic import FLOWERS, write_synthetic
from flowerlib.errors import UserError

SIDES = (40, 56)  # small and fast; the drawing scales with them


def contents(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*.jpg")}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "pictures"
    write_synthetic(folder, 4, SIDES, seed=1)
    return folder


def test_folder_of_five_class_folders(pictures):
    assert sorted(path.name for path in pictures.iterdir()) == ["daisy", "dandelion", "rose", "sunflower", "tulip"]
    for name in FLOWERS:
        files = sorted(path.name for path in (pictures / name).iterdir())
        assert files == [f"{name}_{index:04d}.jpg" for index in range(4)]


def test_every_picture_is_an_rgb_jpeg_within_the_sides(pictures):
    for file in pictures.rglob("*.jpg"):
        with Image.open(file) as image:
            image.load()
            assert (image.format, image.mode) == ("JPEG", "RGB")
            assert SIDES[0] <= min(image.size) <= max(image.size) <= SIDES[1]


def test_same_seed_gives_the_same_bytes(pictures, tmp_path):
    write_synthetic(tmp_path / "again", 4, SIDES, seed=1)
    assert contents(tmp_path / "again") == contents(pictures)


def test_another_seed_gives_other_bytes(pictures, tmp_path):
    write_synthetic(tmp_path / "other", 4, SIDES, seed=2)
    assert not set(contents(tmp_path / "other").values()) & set(contents(pictures).values())


def test_a_picture_does_not_depend_on_how_many_are_drawn(pictures, tmp_path):
    write_synthetic(tmp_path / "fewer", 2, SIDES, seed=1)
    fewer = contents(tmp_path / "fewer")
    assert len(fewer) == 10
    assert fewer.items() <= contents(pictures).items()


def test_pictures_differ_from_one_another(pictures):
    assert len(set(contents(pictures).values())) == 4 * len(FLOWERS)


@pytest.mark.parametrize("name", FLOWERS)
def test_a_flower_covers_its_place_and_no_more(name):
    canvas = Image.new("RGB", (300, 300), (0, 0, 255))
    pen = synthetic._Pen(np.random.default_rng(0), canvas, (150, 150), radius=60)
    FLOWERS[name](pen, synthetic.YELLOW)
    rows, columns = np.nonzero((np.asarray(canvas) != (0, 0, 255)).any(axis=2))
    assert 0.5 < len(rows) / (np.pi * 60**2) < 1.2
    assert np.hypot(rows - 150, columns - 150).max() < 1.5 * 60


def test_interrupted_writing_leaves_nothing(monkeypatch, tmp_path):
    drawn = []

    def stop_midway(pen, colour):
        drawn.append(pen)
        if len(drawn) > 2:
            raise KeyboardInterrupt

    monkeypatch.setitem(FLOWERS, "rose", stop_midway)
    with pytest.raises(KeyboardInterrupt):
        write_synthetic(tmp_path / "pictures", 3, SIDES)
    assert len(drawn) == 3
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_reported_and_leaves_nothing(monkeypatch, tmp_path):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synthetic, "draw_picture", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_synthetic(tmp_path / "pictures", 1, SIDES)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_is_kept(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match="is not empty"):
        write_synthetic(tmp_path, 1, SIDES)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]
