import dataclasses

import numpy as np
import pandas as pd
from made_up import make_run

from flowerlib.metrics import group_seeds, write_repeats


def named(name, **settings):
    return dataclasses.replace(make_run("resnet18-bs32", **settings), name=name)


def test_seeds_of_a_session_are_put_together():
    runs = [
        named("slow-seed1", seed=1, curve=np.full(3, 0.6)),
        named("quick"),
        named("slow-seed0", curve=np.full(3, 0.4)),
    ]
    slow, quick = group_seeds(runs)
    assert (slow.name, slow.seeds) == ("slow", [0, 1])
    np.testing.assert_allclose(slow.metrics["val_aug_acc"], 0.5)
    np.testing.assert_allclose(slow.spread["val_aug_acc"], np.sqrt(0.02))
    assert slow.metrics["epoch"].tolist() == [0, 1, 2]
    assert slow.over_seeds(lambda metrics: metrics["val_aug_acc"].iloc[-1]).to_dict() == {0: 0.4, 1: 0.6}
    assert (quick.name, quick.seeds, quick.spread) == ("quick", [0], None)
    pd.testing.assert_frame_equal(quick.metrics, runs[1].metrics)


def test_one_seed_keeps_its_name_and_other_settings_stay_apart():
    assert [each.name for each in group_seeds([named("slow-seed4", seed=4)])] == ["slow-seed4"]
    apart = group_seeds([named("slow-seed0"), named("slow-seed1", seed=1, learning_rate=0.1)])
    assert [each.name for each in apart] == ["slow-seed0", "slow-seed1"]
    assert [each.name for each in group_seeds([named("a"), named("b")])] == ["a", "b"]


def test_repeats_are_read_as_written(tmp_path):
    write_repeats(tmp_path / "repeats.csv", [1 / 3, 0.1])
    assert pd.read_csv(tmp_path / "repeats.csv")["val_aug_acc"].tolist() == [1 / 3, 0.1]


def test_a_seed_that_is_there_twice_counts_once():
    (slow,) = group_seeds([named("slow"), named("slow-seed0"), named("slow-seed1", seed=1)])
    assert (slow.name, slow.seeds) == ("slow", [0, 1])
