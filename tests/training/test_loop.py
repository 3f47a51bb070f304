import json
import math
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.functional import dropout
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.models import get_model

from flowerlib.calibration import calibrate
from flowerlib.data.photos import load_photos
from flowerlib.data.split import split_photos
from flowerlib.errors import UserError
from flowerlib.experiment import Experiment
from flowerlib.report.statistics import confusion_matrix
from flowerlib.runs import METRICS_COLUMNS, InputInfo, is_up_to_date, read_run
from flowerlib.training import loop as train
from flowerlib.training.augment import DRAWS
from flowerlib.training.loader import Loader
from flowerlib.training.loop import (
    Computation,
    balanced_weights,
    dropout_seed,
    predict,
    score,
    train_and_evaluate,
    train_epoch,
)
from flowerlib.training.model import build_model, for_evaluation, load_weights
from flowerlib.training.trained import read_best

TINY = {
    "weights": "none",
    "image_size": 40,
    "epochs": 2,
    "batch_size": 7,
    "device": "cpu",
    "precision": "float32",
    "learning_rate": 0.01,
    "repeats": 2,
}
IN = {precision: Computation(torch.device("cpu"), precision, InputInfo()) for precision in ("float32", "bfloat16")}
FLOAT32 = IN["float32"]
SECONDS = ["train_seconds", "val_seconds"]


@pytest.fixture
def photos(photo_folder):
    return load_photos(str(photo_folder))


def test_a_session_writes_what_it_should(photos, tmp_path):
    run = train_and_evaluate(Experiment(**TINY, lr_step=1), photos, tmp_path / "run")

    assert tuple(run.metrics.columns) == METRICS_COLUMNS
    assert run.metrics["epoch"].tolist() == [0, 1]
    assert run.metrics["learning_rate"].tolist() == pytest.approx([0.01, 0.001])
    assert np.isfinite(run.metrics.to_numpy()).all()

    parts = split_photos(photos, Experiment())
    assert run.predictions["photo"].tolist() == [photos.paths[index] for index in parts.validation]
    assert run.classes == ["aster", "broom", "clover"]
    np.testing.assert_allclose(run.predictions[run.classes].sum(axis="columns"), 1, atol=1e-5)
    right = run.predictions[run.classes].idxmax(axis="columns") == run.predictions["label"]
    assert right.mean() == run.metrics["val_acc"].iloc[-1]
    assert np.trace(confusion_matrix(run.predictions)) == right.sum()

    assert run.info.finished
    assert run.info.dataset.classes == {"aster": 8, "broom": 8, "clover": 8}
    assert (run.info.split.train, run.info.split.validation) == (19, 5)
    assert run.info.weights.source == "none"


def test_best_pt_is_the_network_of_the_best_epoch(photos, tmp_path):
    run = train_and_evaluate(Experiment(**TINY), photos, tmp_path)
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    model = get_model(best["model"], num_classes=len(best["classes"]))
    model.load_state_dict(best["state_dict"])
    parts = split_photos(photos, Experiment())
    logits, labels = predict(
        for_evaluation(model), Loader(Experiment(**TINY), photos).clean(parts.validation), FLOAT32
    )
    assert score(logits, labels)[1] == run.metrics["val_acc"].max()
    assert run.info.calibration == calibrate(logits.numpy(), labels.numpy())
    assert best["temperature"] == run.info.calibration.temperature


def test_two_runs_with_one_seed_are_identical_and_another_seed_differs(photos, tmp_path):
    runs = [
        train_and_evaluate(Experiment(**TINY, seed=seed), photos, tmp_path / name)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    a, b, c = (run.metrics.drop(columns=SECONDS) for run in runs)
    pd.testing.assert_frame_equal(a, b, check_exact=True)
    pd.testing.assert_frame_equal(runs[0].predictions, runs[1].predictions, check_exact=True)
    assert not a.equals(c)


def test_a_checkpoint_of_other_inputs_is_refused_by_name(photos, tmp_path):
    train_and_evaluate(Experiment(**TINY | {"epochs": 1}), photos, tmp_path)
    with pytest.raises(UserError, match=r"momentum: 0\.9 then, 0\.5 now"):
        train_and_evaluate(Experiment(**TINY | {"epochs": 1, "momentum": 0.5}), photos, tmp_path)
    (photos.root / photos.paths[0]).write_bytes((photos.root / photos.paths[1]).read_bytes())
    with pytest.raises(UserError, match="data's fingerprint"):
        train_and_evaluate(Experiment(**TINY | {"epochs": 1}), load_photos(str(photos.root)), tmp_path)


def test_a_damaged_checkpoint_is_named(photos, tmp_path):
    experiment = Experiment(**TINY | {"epochs": 2})
    train_and_evaluate(experiment, photos, tmp_path)
    for name in ("last.pt", "last.before.pt"):
        (tmp_path / name).write_bytes(b"damaged")
    before = {path: path.read_bytes() for path in tmp_path.glob("*.*")}
    with pytest.raises(UserError, match=r"last\.pt .*last\.before\.pt .*--force"):
        train_and_evaluate(experiment, photos, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.glob("*.*")} == before


def test_a_resumed_session_keeps_its_precision_unless_another_is_asked_for(photos, tmp_path):
    float32 = Experiment(**TINY | {"epochs": 1, "precision": "float32"})
    train_and_evaluate(float32, photos, tmp_path)
    with pytest.raises(UserError, match="precision: float32 then, bfloat16 now"):
        train_and_evaluate(float32.model_copy(update={"epochs": 2, "precision": "bfloat16"}), photos, tmp_path)
    assert is_up_to_date(tmp_path, float32)
    assert not is_up_to_date(tmp_path, float32.model_copy(update={"precision": "bfloat16"}))
    auto = float32.model_copy(update={"epochs": 2, "precision": "auto"})
    assert train_and_evaluate(auto, photos, tmp_path).info.precision == "float32"


def test_more_epochs_go_on_and_end_as_if_asked_for_at_once_and_fewer_are_refused(photos, tmp_path):
    one, two = Experiment(**TINY | {"epochs": 1}), Experiment(**TINY | {"epochs": 2})
    at_once = train_and_evaluate(two, photos, tmp_path / "at-once")
    train_and_evaluate(one, photos, tmp_path / "later")
    later = train_and_evaluate(two, photos, tmp_path / "later")
    pd.testing.assert_frame_equal(at_once.metrics.drop(columns=SECONDS), later.metrics.drop(columns=SECONDS))
    pd.testing.assert_frame_equal(at_once.predictions, later.predictions)
    assert (later.info.finished, later.info.settings.epochs, later.repeats) == (True, 2, at_once.repeats)
    with pytest.raises(UserError, match="epochs: 2 then, 1 now"):
        train_and_evaluate(one, photos, tmp_path / "later")


@pytest.mark.parametrize("lost", ["metrics.csv", "predictions.csv", "repeats.csv", "augmented.csv"])
def test_a_lost_table_is_written_again_without_training(photos, tmp_path, monkeypatch, lost):
    experiment = Experiment(**TINY | {"repeats": 2})
    train_and_evaluate(experiment, photos, tmp_path)
    before = (tmp_path / lost).read_bytes()
    (tmp_path / lost).unlink()
    monkeypatch.setattr(train, "train_epoch", lambda *_: pytest.fail("it trains"))
    assert train_and_evaluate(experiment, photos, tmp_path).info.finished
    assert (tmp_path / lost).read_bytes() == before


def test_more_repeats_are_computed_without_training(photos, tmp_path, monkeypatch):
    few = Experiment(**TINY | {"repeats": 2})
    before = train_and_evaluate(few, photos, tmp_path)
    monkeypatch.setattr(train, "train_epoch", lambda *_: pytest.fail("it trains"))
    after = train_and_evaluate(few.model_copy(update={"repeats": 4}), photos, tmp_path)
    assert (len(after.repeats), after.repeats[:2]) == (4, before.repeats)
    assert len(train_and_evaluate(few, photos, tmp_path).repeats) == 4  # more than enough


def test_the_same_photos_may_be_named_otherwise(photos, tmp_path):
    train_and_evaluate(Experiment(**TINY | {"epochs": 1}), photos, tmp_path)
    other = Experiment(**TINY | {"epochs": 1, "data": "somewhere/else", "device": "auto"})
    assert train_and_evaluate(other, photos, tmp_path).info.finished


@pytest.mark.parametrize("names", [("0", "1", "10"), ("NA", "null", "True")])
def test_classes_may_be_called_anything_but_the_tables_own_columns(photo_folder, tmp_path, names):
    for before, after in zip(("aster", "broom", "clover"), names, strict=True):
        (photo_folder / before).rename(photo_folder / after)
    run = train_and_evaluate(Experiment(**TINY | {"epochs": 1}), load_photos(str(photo_folder)), tmp_path / "run")
    right = round(run.metrics["val_acc"].iloc[-1] * len(run.predictions))
    assert np.trace(confusion_matrix(run.predictions)) == right
    assert confusion_matrix(run.predictions).to_numpy().sum() == len(run.predictions) == 5
    (photo_folder / names[0]).rename(photo_folder / "label")
    with pytest.raises(UserError, match="rename the class folder 'label'"):
        load_photos(str(photo_folder))


def test_a_finished_run_is_not_trained_again_and_keeps_saying_where_it_was_computed(photos, tmp_path, capsys):
    experiment = Experiment(**TINY | {"epochs": 1})
    train_and_evaluate(experiment, photos, tmp_path)
    info = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(info | {"commit": "another"}))
    capsys.readouterr()
    assert train_and_evaluate(experiment, photos, tmp_path).info.commit == "another"
    assert capsys.readouterr().out.startswith("Nothing to train")


def test_means_are_over_photos_not_over_batches():
    torch.manual_seed(0)
    images, labels = torch.randint(0, 256, (10, 8, 8, 3), dtype=torch.uint8), torch.arange(10) % 3
    model = nn.Sequential(nn.Flatten(), nn.Linear(8 * 8 * 3, 3))
    frozen = torch.optim.SGD(model.parameters(), lr=0.0)
    whole = train_epoch(model, frozen, [(images, labels)], FLOAT32)
    uneven = train_epoch(model, frozen, [(images[:7], labels[:7]), (images[7:], labels[7:])], FLOAT32)
    assert uneven == pytest.approx(whole, rel=1e-5)
    assert score(*predict(model, [(images[:7], labels[:7]), (images[7:], labels[7:])], FLOAT32)) == pytest.approx(
        whole, rel=1e-5
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_learns_and_evaluation_leaves_the_network_alone(precision):
    # in bfloat16 a copy of the weights kept from an earlier step would hold the loss where it began
    torch.manual_seed(0)
    labels = torch.arange(40) % 2
    images = (torch.randint(0, 100, (40, 8, 8, 3)) + 120 * labels[:, None, None, None]).to(torch.uint8)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = [train_epoch(model, optimizer, [(images, labels)], IN[precision])[0] for _ in range(10)]
    assert losses[-1] < 0.5 * losses[0]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    predict(model, [(images, labels)], IN[precision])
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_score_of_known_logits():
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    loss, accuracy = score(logits, torch.tensor([0, 1, 0]))
    expected = (math.log(1 + math.exp(-2)) + math.log(2) + math.log(1 + math.e)) / 3
    assert (loss, accuracy) == (pytest.approx(expected), pytest.approx(1 / 3))


def test_bfloat16_gives_nearly_the_same_logits(photos):
    torch.manual_seed(0)
    model = build_model("resnet18", 3, load_weights("none", "resnet18")).to(memory_format=torch.channels_last)
    batches = list(Loader(Experiment(**TINY | {"image_size": 64}), photos).clean(np.arange(24)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    train_epoch(model, optimizer, batches, FLOAT32)  # so that batch norm knows the photos
    exact, rounded = (predict(model, batches, IN[precision])[0] for precision in ("float32", "bfloat16"))
    error = (rounded - exact).norm() / exact.norm()
    assert 0 < error < 0.03  # bfloat16 keeps 8 bits; 0 would mean that it was not used


def test_run_json_is_plain_json(photos, tmp_path):
    train_and_evaluate(Experiment(**TINY | {"epochs": 1}), photos, tmp_path)
    info = json.loads((tmp_path / "run.json").read_text())
    assert info["draws"] == torch.load(tmp_path / "last.pt", weights_only=True)["draws"] == DRAWS
    assert info["model"]["parameters"] == info["model"]["trained"] == 11_178_051
    assert info["input"]["mean"] == [0.485, 0.456, 0.406]
    assert {"settings", "seed", "dataset", "split", "weights", "precision", "device", "versions", "commit"} <= set(
        info
    )


def test_a_frozen_backbone_stays_as_it_was_and_the_head_learns(photos, tmp_path):
    torch.manual_seed(0)
    start = build_model("resnet18", 3, load_weights("none", "resnet18"))
    torch.save(start.state_dict(), tmp_path / "start.pth")
    settings = TINY | {"weights": str(tmp_path / "start.pth"), "freeze": True}
    train_and_evaluate(Experiment(**settings), photos, tmp_path / "run")
    end = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["model"]
    for key, value in start.state_dict().items():
        if not key.startswith("fc."):  # batch norm's running means are among them
            assert torch.equal(value, end[key]), key
    first, last = (torch.load(tmp_path / "run" / name, weights_only=True) for name in ("last.before.pt", "last.pt"))
    assert not torch.equal(first["model"]["fc.weight"], last["model"]["fc.weight"])


def test_the_last_network_is_evaluated_on_new_augmentations_each_time(photos, tmp_path):
    experiment = Experiment(**TINY | {"repeats": 6})
    run = train_and_evaluate(experiment, photos, tmp_path)
    assert len(run.repeats) == 6
    assert len(set(run.repeats)) > 1
    model = build_model("resnet18", 3, load_weights("none", "resnet18"))
    model.load_state_dict(torch.load(tmp_path / "last.pt", weights_only=True)["model"])
    views = Loader(experiment, photos).augmented(split_photos(photos, Experiment()).validation, experiment.epochs + 4)
    assert score(*predict(model, views, FLOAT32))[1] == run.repeats[4]


def test_dropout_differs_between_seeds_and_epochs():
    masks = []
    for seed, epoch in ((0, 0), (1, 0), (5, 0), (0, 1), (2**32 - 1, 0)):
        torch.manual_seed(dropout_seed(seed, epoch))
        masks.append(tuple(dropout(torch.ones(64)).tolist()))
    assert len(set(masks)) == len(masks)


def test_each_photo_is_counted_in_the_repeated_evaluations(photos, tmp_path):
    run = train_and_evaluate(Experiment(**TINY | {"repeats": 6}), photos, tmp_path)
    table = pd.read_csv(tmp_path / "augmented.csv")
    assert list(table.columns) == ["photo", "correct"]
    assert table["photo"].tolist() == run.predictions["photo"].tolist()
    assert table["correct"].between(0, 6).all()
    assert table["correct"].sum() == round(sum(run.repeats) * len(table))


def test_a_finished_run_without_its_checkpoints_is_not_overwritten(photos, tmp_path):
    experiment = Experiment(**TINY | {"epochs": 1})
    train_and_evaluate(experiment, photos, tmp_path)
    (tmp_path / "last.pt").unlink()
    before = (tmp_path / "metrics.csv").read_bytes()
    assert train_and_evaluate(experiment, photos, tmp_path).info.finished  # nothing is left to do
    with pytest.raises(UserError, match="a finished run without its checkpoints"):
        train_and_evaluate(Experiment(**TINY | {"epochs": 2}), photos, tmp_path)
    assert (tmp_path / "metrics.csv").read_bytes() == before


def test_a_finished_run_of_other_settings_is_refused_also_without_its_checkpoint(photos, tmp_path):
    train_and_evaluate(Experiment(**TINY | {"epochs": 1}), photos, tmp_path)
    (tmp_path / "last.pt").unlink()
    with pytest.raises(UserError, match=r"momentum: 0\.9 then, 0\.5 now"):
        train_and_evaluate(Experiment(**TINY | {"epochs": 1, "momentum": 0.5}), photos, tmp_path)


# photos held out from every choice, and classes of unequal size


def test_best_pt_is_scored_once_on_the_photos_set_aside(photos, tmp_path, capsys):
    experiment = Experiment(**TINY, test=0.25)
    run = train_and_evaluate(experiment, photos, tmp_path / "run")
    parts = split_photos(photos, experiment)
    assert (len(parts.test), run.info.split.test) == (6, 6)
    assert "best.pt is right on" in capsys.readouterr().out

    best = read_best(tmp_path / "run/best.pt")
    logits, labels = predict(best.network, Loader(experiment, photos).clean(parts.test), FLOAT32)
    loss, accuracy = score(logits, labels)
    assert run.info.test.photos == 6
    assert run.info.test.correct == pytest.approx(6 * accuracy)
    assert run.info.test.loss == pytest.approx(loss)

    with pytest.raises(UserError, match="scored on its test photos"):
        train_and_evaluate(Experiment(**TINY | {"epochs": 3}, test=0.25), photos, tmp_path / "run")
    assert read_run(tmp_path / "run").info.test == run.info.test

    (tmp_path / "run/best.pt").unlink()  # it is not needed again: more repeats don't score it anew
    more = train_and_evaluate(Experiment(**TINY | {"repeats": 3}, test=0.25), photos, tmp_path / "run")
    assert (len(more.repeats), more.info.test) == (3, run.info.test)
    assert more.info.peak_memory > 100


def test_balanced_weights_let_every_class_count_the_same():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    weights = balanced_weights(labels, 4)
    assert weights.dtype == torch.float32
    assert [float(weights[label]) * (labels == label).sum() for label in range(3)] == pytest.approx([25] * 3)
    assert weights.isfinite().all()


class NoDoubles(TorchDispatchMode):
    """Fails where a float64 tensor is made on a device other than the CPU."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, torch.Tensor) and each.device.type != "cpu":
                assert each.dtype != torch.float64, f"{function} in float64"
        return result


def test_the_network_needs_no_float64_which_apples_gpus_lack(monkeypatch):
    monkeypatch.setattr(train, "mixed_precision", lambda *_: nullcontext())
    shapes_alone = torch.device("meta")  # stands for any device but the CPU, and computes nothing
    with shapes_alone:
        model = build_model("resnet18", 2, load_weights("none", "resnet18"))
        batches = [(torch.zeros(4, 40, 40, 3, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))]
        weights = torch.ones(2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    computation = Computation(shapes_alone, "float32", InputInfo())
    with NoDoubles():
        for each in (None, weights):
            with pytest.raises((NotImplementedError, RuntimeError), match="meta"):  # both end by asking for a value
                train_epoch(model, optimizer, batches, computation, each)
        with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
            predict(for_evaluation(model), batches, computation)
        with pytest.raises(AssertionError, match="float64"):
            batches[0][0].double()


def test_too_little_memory_on_a_gpu_is_said_with_the_settings_to_lower(photos, tmp_path, monkeypatch):
    def too_large(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")

    monkeypatch.setattr(train, "train_epoch", too_large)
    with pytest.raises(UserError, match="smaller batch_size or image_size"):
        train_and_evaluate(Experiment(**TINY), photos, tmp_path / "run")


def test_rare_photos_weigh_the_same_whatever_their_batch():
    pictures = torch.zeros(4, 8, 8, 3, dtype=torch.uint8)
    weights = torch.tensor([0.5, 2.0])

    def loss_of(labels):
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
        nn.init.zeros_(model[1].weight), nn.init.zeros_(model[1].bias)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        return train_epoch(model, optimizer, [(pictures, torch.tensor(labels))], FLOAT32, weights)[0]

    assert loss_of([0, 0, 0, 0]) == pytest.approx(0.5 * math.log(2))
    assert loss_of([0, 0, 0, 1]) == pytest.approx((3 * 0.5 + 2) / 4 * math.log(2))


def test_class_weights_change_the_training_and_are_an_input(photos, tmp_path):
    for _ in range(2):
        photos = load_photos(str(_without(photos, "clover")))
    plain = train_and_evaluate(Experiment(**TINY), photos, tmp_path / "plain")
    balanced = train_and_evaluate(Experiment(**TINY, class_weights="balanced"), photos, tmp_path / "balanced")
    assert plain.metrics["train_loss"].tolist() != balanced.metrics["train_loss"].tolist()
    with pytest.raises(UserError, match="class_weights: none then, balanced now"):
        train_and_evaluate(Experiment(**TINY, class_weights="balanced"), photos, tmp_path / "plain")


def test_where_classes_are_unequal_the_smallest_is_told_beside_accuracy(photos, tmp_path, capsys):
    train_and_evaluate(Experiment(**TINY), photos, tmp_path / "equal")
    assert "balanced" not in capsys.readouterr().out
    for _ in range(5):
        photos = load_photos(str(_without(photos, "broom")))
    run = train_and_evaluate(Experiment(**TINY), photos, tmp_path / "unequal")
    (last,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch  1"))
    recall = pd.Series(np.diag(matrix := confusion_matrix(run.predictions)), matrix.index) / matrix.sum(axis=1)
    assert last.endswith(f"; balanced acc {recall.mean():.3f}, broom {recall['broom']:.3f}")


def _without(photos, name):
    """The folder, with one photo less of a class."""
    next((photos.root / name).iterdir()).unlink()
    return photos.root
