import json
import re

import numpy as np
import onnx
import pytest
import torch

from flowerlib.cli import main
from flowerlib.data.photos import load_photos
from flowerlib.data.split import split_photos
from flowerlib.experiment import Experiment
from flowerlib.files import PROJECT
from flowerlib.runs import InputInfo, read_run
from flowerlib.training import export
from flowerlib.training.augment import normalize
from flowerlib.training.loader import Loader
from flowerlib.training.loop import train_and_evaluate
from flowerlib.training.trained import read_best

OWN_PHOTOS = PROJECT / "docs" / "own-photos.md"
TINY = Experiment(weights="none", image_size=40, epochs=1, batch_size=8, device="cpu", precision="float32")


def train(experiment, photo_folder, run_dir):
    """A session's folder, its validation pictures as the network sees them, and their probabilities."""
    photos = load_photos(str(photo_folder))
    run = train_and_evaluate(experiment, photos, run_dir)
    batches = Loader(experiment, photos).clean(split_photos(photos, Experiment()).validation)
    pictures = torch.cat([normalize(images, run.info.input) for images, _ in batches]).contiguous()
    return run_dir, pictures, run.predictions[run.classes].to_numpy()


@pytest.fixture
def trained(photo_folder, tmp_path):
    """`train` for a small session."""
    return train(TINY, photo_folder, tmp_path / "run")


def test_the_docs_lines_give_the_network_that_was_evaluated_and_its_answer(trained, photo_folder):
    run_dir, pictures, probabilities = trained
    (lines,) = re.findall(r"```python\n(.*?)```", OWN_PHOTOS.read_text(encoding="utf-8"), re.DOTALL)
    photo, names = photo_folder / read_run(run_dir).predictions["photo"][0], {}
    exec(lines.replace("runs/flowers/resnet18-bs32", str(run_dir)).replace("photo.jpg", str(photo)), names)
    with torch.inference_mode():
        logits = names["network"](pictures)
    np.testing.assert_allclose(logits.softmax(dim=1), probabilities, atol=1e-5)
    expected = (logits[:1] / names["best"]["temperature"]).softmax(dim=1)
    np.testing.assert_allclose(names["probabilities"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "mean", "std"),
    [
        ("resnet18", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("efficientnet_lite0", (127 / 255,) * 3, (128 / 255,) * 3),
    ],
)
def test_the_onnx_file_computes_the_same_and_says_what_it_is(photo_folder, tmp_path, capsys, model, mean, std):
    experiment = TINY.model_copy(update={"model": model})
    run_dir, pictures, probabilities = train(experiment, photo_folder, tmp_path / "run")
    best = torch.load(run_dir / "best.pt", weights_only=True)
    assert (best["mean"], best["std"]) == (mean, std)
    assert main(["export", str(run_dir / "best.pt"), str(tmp_path / "out" / "best.onnx")]) == 0
    assert "checked against the network" in capsys.readouterr().out
    (logits,) = export.onnxruntime.InferenceSession(tmp_path / "out" / "best.onnx").run(
        ["logits"], {"pictures": pictures.numpy()}
    )
    np.testing.assert_allclose(torch.from_numpy(logits).softmax(dim=1), probabilities, atol=1e-5)
    metadata = {item.key: item.value for item in onnx.load(tmp_path / "out" / "best.onnx").metadata_props}
    assert json.loads(metadata["classes"]) == ["aster", "broom", "clover"]
    assert metadata["image_size"] == "40"
    assert (json.loads(metadata["mean"]), json.loads(metadata["std"])) == (list(mean), list(std))


def test_a_file_that_computes_otherwise_is_not_kept(trained, tmp_path, monkeypatch):
    run_dir, _, _ = trained
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    with pytest.raises(ArithmeticError, match="differ from the network's"):
        export.export_onnx(run_dir / "best.pt", tmp_path / "best.onnx")
    assert not list(tmp_path.glob("*.onnx*"))


def test_an_older_best_pt_has_imagenets_standardization(trained):
    path = trained[0] / "best.pt"
    content = torch.load(path, weights_only=True)
    del content["mean"], content["std"]
    torch.save(content, path)
    assert read_best(path).standardization == InputInfo()


@pytest.mark.parametrize("name", ["last.pt", "run.json", "missing.pt"])
def test_what_is_no_best_pt_is_named(trained, tmp_path, capsys, name):
    run_dir, _, _ = trained
    assert main(["export", str(run_dir / name), str(tmp_path / "best.onnx")]) == 1
    assert str(run_dir / name) in capsys.readouterr().err
