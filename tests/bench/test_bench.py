import json
import subprocess

import pandas as pd
import pytest
import torch

from flowerlib.allocator import ALLOCATOR_ENVIRONMENT
from flowerlib.bench import speed as bench
from flowerlib.data.photos import load_photos
from flowerlib.data.split import split_photos
from flowerlib.errors import UserError
from flowerlib.experiment import Experiment

SMALL = {"image_size": 40, "batch_size": 8, "device": "cpu", "weights": "none"}


@pytest.mark.parametrize("way", ["course", "reference", "fast", "step", "evaluation", "fastai"])
def test_each_way_is_measured(photo_folder, monkeypatch, way):
    if way == "fastai":
        pytest.importorskip("fastai")
    monkeypatch.setattr(bench, "WARM_UP", 1)
    monkeypatch.setattr(bench, "MEASURED", 2)
    assert bench._run_case(bench.Case(way, way, SMALL), str(photo_folder))["images a second"] > 0


def test_a_whole_epoch_is_of_copies_of_an_eighth_of_the_photos(photo_folder):
    images, seconds = bench._epoch(Experiment(**SMALL), load_photos(str(photo_folder)), 2)
    assert images == 6
    assert seconds > 0


def test_the_ways_start_from_the_same_network_and_learn_from_the_training_photos_alone(photo_folder, monkeypatch):
    (photo_folder / "__MACOSX").mkdir()  # no class, for a session
    experiment, photos = Experiment(**SMALL), load_photos(str(photo_folder))
    parts = split_photos(photos, experiment)
    models = {}
    for name in ("course", "reference", "fast"):
        model, batches, _ = bench.TRAININGS[name](experiment, photos, parts.train)
        models[name] = model.state_dict()["conv1.weight"]
        labels = torch.cat([labels for _, labels in batches()])
        whole = len(parts.train) // 8 * 8 if name == "course" else len(parts.train)  # it drops a last, smaller batch
        assert len(labels) == whole
    assert torch.equal(models["course"], models["reference"])
    assert torch.equal(models["course"], models["fast"])
    case = bench.Case("our fast path", "fast", SMALL, epochs=1)
    measured = bench._run_case(case, str(photo_folder))
    assert 0 <= measured["clean accuracy"] <= 1
    assert measured["training seconds"] > 0


def test_the_tables_hold_medians_and_ratios_of_one_run(photo_folder, tmp_path, monkeypatch, capsys):
    rates = {"course": [10, 20, 12], "fast": [30, 36, 90], "limit": [48, 48, 48], "evaluation": [144, 144, 144]}
    calls = []

    def measured(case, source):
        calls.append(case.way)
        turn = calls.count(case.way) - 1
        return {"images a second": rates.get(case.way, [1, 1, 1])[min(turn, 2)], "peak MiB": 100.0 + turn}

    monkeypatch.setattr(bench, "_in_a_process", measured)
    bench.run_bench(str(photo_folder), tmp_path / "out", repetitions=3, epochs=2)
    turn = [case.way for case in bench._cases()]
    assert calls[: 3 * len(turn)] == 3 * turn  # one of each in each turn

    table = pd.read_csv(tmp_path / "out" / "bench.csv").set_index("case")
    assert table.loc["the course's way", "images a second"] == 12
    assert table.loc["our fast path", "times the course's way"] == 3
    assert table.loc["our fast path", "share of the limit"] == 0.75
    assert table.loc["our fast path", "peak MiB"] == 101
    # 1,140 photos at 144 a second beside 2,278 at 36
    assert f"{7.9167 / (7.9167 + 63.2778):.1%} of an epoch" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "out" / "scaling.csv")) == 13
    accuracy = pd.read_csv(tmp_path / "out" / "accuracy.csv")
    assert {"the course's way", "our fast path"} <= set(accuracy["case"])
    operations = pd.read_csv(tmp_path / "out" / "augment.csv").set_index("operation")
    assert (operations[["Pillow", "flowerlib"]] > 0).all(axis=None)
    assert {"type", "name", "threads", "torch", "photos"} <= set(
        json.loads((tmp_path / "out/machine.json").read_text())
    )


def test_a_measurement_that_fails_is_named(tmp_path):
    with pytest.raises(UserError, match="our fast path"):
        bench._in_a_process(bench.Case("our fast path", "fast", {}), str(tmp_path / "nowhere"))


def test_a_measurement_that_is_killed_is_named(monkeypatch):
    killed = subprocess.CompletedProcess([], -9, stdout="", stderr="")
    monkeypatch.setattr(bench.subprocess, "run", lambda *_, **__: killed)
    with pytest.raises(UserError, match="our fast path failed: exit status -9"):
        bench._in_a_process(bench.Case("our fast path", "fast", {}), "flowers")


def test_our_own_ways_are_measured_with_the_allocator_that_sessions_get(monkeypatch):
    given = {}

    def run(command, env, **_):
        given[json.loads(command[3])["way"]] = {name: env.get(name) for name in ALLOCATOR_ENVIRONMENT}
        return subprocess.CompletedProcess(command, 0, stdout="{}")

    monkeypatch.setattr(bench.subprocess, "run", run)
    for way in ("fast", "course"):
        bench._in_a_process(bench.Case(way, way, {}), "flowers")
    assert given == {"fast": ALLOCATOR_ENVIRONMENT, "course": dict.fromkeys(ALLOCATOR_ENVIRONMENT)}
