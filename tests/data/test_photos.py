"""Odd, bad and vanishing photos, all the way from the file to the network."""

import os
import shutil
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torch import nn

from flowerlib.cli import main
from flowerlib.data import photos as dataset
from flowerlib.data.photos import load_photos
from flowerlib.errors import UserError
from flowerlib.experiment import Experiment
from flowerlib.runs import InputInfo, read_run
from flowerlib.training import loop as train
from flowerlib.training.loader import Loader
from flowerlib.training.loop import Computation, predict, train_and_evaluate, train_epoch

FLOAT32 = Computation(torch.device("cpu"), "float32", InputInfo())
TURNS = {  # what a camera that writes this EXIF orientation has done to the upright picture
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def scene(width=60, height=40):
    """Four fields, red, green, blue and white, by which every turn and flip is told."""
    picture = Image.new("RGB", (width, height), "white")
    for colour, left, top in (("red", 0, 0), ("lime", width // 2, 0), ("blue", 0, height // 2)):
        picture.paste(colour, (left, top, left + width // 2, top + height // 2))
    return picture


def in_mode(mode, suffix, **options):
    def write(path):
        picture = scene().convert(mode)
        picture.save(path, **options)
        return picture.convert("RGB")

    return pytest.param(write, suffix, id=f"{mode}{suffix}")


def turned(orientation, suffix):
    def write(path):
        picture = scene()
        exif = picture.getexif()
        exif[0x0112] = orientation
        picture.transpose(TURNS[orientation]).save(path, exif=exif)
        return picture

    return pytest.param(write, suffix, id=f"orientation{orientation}{suffix}")


def animated(suffix, **options):
    def write(path):
        scene().save(path, save_all=True, append_images=[Image.new("RGB", (60, 40), "black")], **options)
        return scene()

    return pytest.param(write, suffix, id=f"animated{suffix}")


def of_size(width, height):
    def write(path):
        scene(width, height).save(path)
        return scene(width, height)

    return pytest.param(write, ".png", id=f"{width}x{height}")


@pytest.mark.parametrize(
    ("write", "suffix"),
    [
        in_mode("L", ".png"),
        in_mode("L", ".jpg"),
        in_mode("1", ".png"),
        in_mode("P", ".png"),
        in_mode("P", ".png", transparency=0),
        in_mode("P", ".gif"),
        in_mode("LA", ".png"),
        in_mode("RGBA", ".png"),
        in_mode("CMYK", ".jpg"),
        in_mode("YCbCr", ".tif"),
        *(turned(orientation, suffix) for suffix in (".jpg", ".png") for orientation in TURNS),
        animated(".gif"),
        animated(".webp", lossless=True),
        of_size(1, 1),
        of_size(20_000, 10),
        of_size(10, 20_000),
        of_size(40_000, 1),
    ],
)
def test_odd_photos_go_all_the_way(photo_folder, write, suffix, recwarn):
    upright = np.asarray(write(photo_folder / f"aster/00{suffix}"), float)
    photos = load_photos(str(photo_folder))
    index = photos.paths.index(f"aster/00{suffix}")
    assert photos.read(index).shape == upright.shape
    assert np.abs(photos.read(index) - upright).mean() < 8  # what JPEG costs: a wrong turn costs 100

    loader, everything = Loader(Experiment(image_size=40, batch_size=7), photos), np.arange(len(photos))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loss, _ = train_epoch(model, optimizer, loader.training(everything, 0), FLOAT32)
    assert np.isfinite(loss)
    for batches in (loader.clean(everything), loader.augmented(everything, 0)):
        logits, labels = predict(model, batches, FLOAT32)
        assert logits.isfinite().all()
        assert labels.tolist() == photos.labels.tolist()
    assert not recwarn


# bombs


def png_claiming(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def gif_claiming(width, height):
    image = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02L\x01\x00;"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + image


@pytest.mark.parametrize("claiming", [png_claiming, gif_claiming])
@pytest.mark.parametrize("side", [9_500, 14_000])  # where Pillow alone would warn, and where it refuses too
def test_a_decompression_bomb_is_refused_by_its_header(photo_folder, monkeypatch, recwarn, claiming, side):
    (photo_folder / "aster/0.jpg").write_bytes(claiming(60, 40))
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert dataset.decode(claiming(60, 40), 800).size == (60, 40)  # nothing else is wrong with it

    loaded, load = [], ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: (loaded.append(image.size), load(image))[1])
    (photo_folder / "aster/0.jpg").write_bytes(claiming(side, side))
    with pytest.raises(UserError, match=r"1 of 24 photos .*aster/0\.jpg \([^)]*pixels"):
        load_photos(str(photo_folder))
    assert len(loaded) > 0
    assert (side, side) not in loaded
    assert not recwarn


# bad photos


def spoil(folder):
    """Make four photos bad, each in its way; return their paths and what is said of them."""
    (folder / "aster/0.jpg").write_text("no photo at all")
    (folder / "broom/1.jpg").write_bytes((folder / "broom/1.jpg").read_bytes()[:900])
    (folder / "clover/2.jpg").write_bytes(b"")
    (folder / "clover/3.jpg").write_bytes(png_claiming(9_500, 9_500))
    return {
        "aster/0.jpg": "not an image",
        "broom/1.jpg": "the file is cut off",
        "clover/2.jpg": "not an image",
        "clover/3.jpg": "9500 × 9500 pixels",
    }


def test_not_all_of_many_bad_photos_are_named_in_one_message(photo_folder, monkeypatch):
    first, second, *others = spoil(photo_folder)
    monkeypatch.setattr("flowerlib.data.photos.MOST_NAMED", 2)
    with pytest.raises(UserError, match=rf"{first} .*, {second} .* and others, which flowerlib data lists") as error:
        load_photos(str(photo_folder))
    assert not any(path in str(error.value) for path in others)


def test_a_run_without_its_bad_photos_says_so(photo_folder, tmp_path, capsys):
    bad = spoil(photo_folder)
    (tmp_path / "experiments.yaml").write_text("only:\n")
    arguments = ["--data", str(photo_folder), "--runs", str(tmp_path / "runs")]
    arguments += ["--experiments", str(tmp_path / "experiments.yaml"), "--weights", "none"]
    arguments += ["--set", "epochs=1", "--set", "image_size=40", "--set", "device=cpu"]

    assert main(["data", "--data", str(photo_folder)]) == 1
    assert main(["run", *arguments]) == 1
    said = capsys.readouterr().err
    assert "4 of 24 photos" in said
    assert all(f"{path} ({reason}" in said for path, reason in bad.items())
    assert not (tmp_path / "runs").exists()

    assert main(["run", *arguments, "--set", "skip_bad=true"]) == 0
    assert "4 photos that can't be read are left out" in capsys.readouterr().out
    run = read_run(tmp_path / "runs/photos/only")
    skipped = run.info.dataset.skipped
    assert skipped.keys() == bad.keys()
    assert all(skipped[path].startswith(reason) for path, reason in bad.items())
    assert run.info.dataset.classes == {"aster": 7, "broom": 7, "clover": 6}
    assert run.info.dataset.photos == 20
    assert (run.info.split.train, run.info.split.validation) == (16, 4)
    assert not bad.keys() & set(run.predictions["photo"])


@pytest.mark.parametrize("classes", [("broom",), ("aster", "broom", "clover")])
def test_a_class_of_bad_photos_only_is_not_left_out(photo_folder, classes):
    for name in classes:
        for photo in (photo_folder / name).iterdir():
            photo.write_text("no photo at all")
    with pytest.raises(UserError, match=f"hold no readable photos: {', '.join(classes)}"):
        load_photos(str(photo_folder), skip_bad=True)
    assert main(["data", "--data", str(photo_folder)]) == 1


# photos that change


def remove(photo):
    photo.unlink()


def damage(photo):
    photo.write_text("no photo at all")


def replace(photo):
    shutil.copy(photo.with_name("1.jpg"), photo)


@pytest.mark.parametrize(
    ("happen", "said"),
    [
        (remove, r"aster/0\.jpg \(No such file"),
        (damage, r"aster/0\.jpg \(not an image"),
        (replace, r"changed while they were read: aster/0\.jpg\."),
    ],
)
def test_a_photo_that_changes_between_hashing_and_decoding_is_named(photo_folder, monkeypatch, happen, said):
    inspect = dataset.inspect

    def inspect_and_happen(root, paths, decoded, side):
        files = inspect(root, paths, decoded, side)
        if decoded is None:
            happen(photo_folder / "aster/0.jpg")
        return files

    monkeypatch.setattr(dataset, "inspect", inspect_and_happen)
    with pytest.raises(UserError, match=said):
        load_photos(str(photo_folder))
    left = os.listdir(os.environ["FLOWERLIB_CACHE"])
    assert [name for name in left if not name.endswith(".lock")] == []


# the cache of decoded photos


def truncate(file):
    os.truncate(file, 100)


@pytest.mark.parametrize("happen", [remove, truncate])
def test_a_cache_lost_in_the_middle_of_a_run_names_a_photo_and_the_next_run_goes_on(
    photo_folder, tmp_path, monkeypatch, happen
):
    experiment = Experiment(weights="none", image_size=40, epochs=2, batch_size=7, device="cpu")
    photos = load_photos(str(photo_folder))
    write_last = train.write_last

    def write_last_and_happen(*arguments):
        write_last(*arguments)
        happen(photos.pixels.file)

    with monkeypatch.context() as patch:
        patch.setattr(train, "write_last", write_last_and_happen)
        with pytest.raises(UserError, match=r"pixels of \w+/\d\.jpg can't be read .* Run the same command again"):
            train_and_evaluate(experiment, photos, tmp_path / "run")
    run = train_and_evaluate(experiment, load_photos(str(photo_folder)), tmp_path / "run")
    assert run.info.finished
    assert run.metrics["epoch"].tolist() == [0, 1]
