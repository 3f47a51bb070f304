import pandas as pd
import pytest
from made_up import changed, make_run

from flowerlib.report.claims import CLAIMS
from flowerlib.report.paper.committed import settings_table
from flowerlib.report.paper.others import others_index, others_numbers, others_table, others_tables
from flowerlib.report.paper.published import LATE, SESSIONS, paper_claims


def test_every_claim_is_judged_once_and_in_order():
    keys = [claim.key for claim in CLAIMS]
    assert keys == list(paper_claims())
    assert "".join(keys) == "abcde1e2fghij"


def test_claims_are_quoted_with_where_they_stand():
    claims = paper_claims()
    # paper, section 4, and the end of the abstract
    assert claims["a"].quotation == "the model appears to converge after the 10th epoch"
    assert claims["d"].quotation.startswith("the trends for the various performance metrics are smoother")
    assert claims["e1"].quotation == claims["e2"].quotation
    assert claims["j"].quotation == "significantly curtails training expenditure"
    assert {claim.section for claim in claims.values()} == {"4", "Abstract"}
    assert all("..." not in claim.quotation and "…" not in claim.quotation for claim in claims.values())


def test_the_runs_column_is_computed_from_run_json():
    run = make_run("resnet18-bs32", flip=0.5, translation=0, seed=3, freeze=True, hue=0)
    table = settings_table([run]).set_index("setting")
    assert list(table.columns) == ["text", "code", "runs"]
    assert table.notna().all(axis=None)
    expected = {
        "crop": "RandomResizedCrop 224",
        "horizontal flip": "probability 0.5",
        "rotation": "±30°",
        "colour jitter": "brightness 0.2, contrast 0.2, saturation 0.2",
        "translation": "none",
        "order": "crop, flip, rotation, jitter, tensor, normalize",
        "split": "split seed 0: 4,000 and 1,000",
        "weights": "pre-trained on ImageNet",
        "trained": "the last layer",
        "optimizer and schedule": "SGD 0.001, momentum 0.9; StepLR 7, 0.1",
        "seeds": "3",
        "precision": "float32",
        "hardware": "cpu, 2 threads",
    }
    assert table["runs"][list(expected)].to_dict() == expected


def test_runs_that_differ_are_all_told():
    runs = [make_run("resnet18-bs32", seed=seed) for seed in (0, 1)]
    runs.append(changed(make_run("resnet34-bs32", seed=1), precision="bfloat16", weights={"trained_on": "birds"}))
    table = settings_table(runs).set_index("setting")["runs"]
    assert table["seeds"] == "0; 1"
    assert table["precision"] == "float32; bfloat16"
    assert table["weights"] == "pre-trained on ImageNet; trained on birds"


def test_what_the_text_and_the_code_say_of_the_method():
    table = pd.DataFrame(settings_table([make_run("resnet18-bs32")])).set_index("setting")
    assert table.loc["horizontal flip", "text"] == "probability 0.1"
    assert "0.5" in table.loc["horizontal flip", "code"]
    assert table.loc["translation", "code"] == "none"
    for setting in ("split", "validation transform", "seeds", "precision", "hardware"):
        assert table.loc[setting, "text"] == "not said"


def test_others_logs_are_whole():
    index, tables = others_index().set_index("run"), others_tables()
    assert list(tables) == list(index.index)
    for run, table in tables.items():
        assert list(table.columns) == ["epoch", "train_loss", "train_acc", "val_aug_loss", "val_aug_acc"]
        assert len(table) == index.loc[run, "epochs_logged"]
        assert table["epoch"].is_monotonic_increasing
        assert table["val_aug_acc"].max() == pytest.approx(index.loc[run, "best_val_aug_acc"], abs=5e-5)


def test_the_published_sessions_stand_among_those_of_others():
    table = others_table().set_index("run")
    assert LATE == 14
    assert table["late_acc"].is_monotonic_decreasing
    assert table.loc[list(SESSIONS), "late_acc"].tolist() == pytest.approx([0.92, 0.8895, 0.916])
    assert table.loc[["E18", "E34", "E50"], "late_acc"].tolist() == pytest.approx([0.8971, 0.9015, 0.9115], abs=5e-5)
    assert (table["source"] == "others").sum() == 7
    # ResNet-18 at batch 32: the paper's is the highest, and its batch 64 is below everybody
    assert table.index[0] == "resnet18-bs32"
    assert table.index[-1] == "resnet18-bs64"


def test_what_others_runs_say_of_the_papers_comparisons():
    numbers = others_numbers()
    assert numbers["resnet18_runs"] == 5
    assert (numbers["lowest"], numbers["highest"]) == pytest.approx((0.897, 0.918), abs=5e-4)
    assert numbers["deeper"] == pytest.approx(0.004, abs=5e-4)
    assert numbers["deeper_time"] == pytest.approx(291 / 278)
    assert numbers["published_deeper"] == pytest.approx(-0.004)
    assert numbers["highest"] - numbers["lowest"] > abs(numbers["published_deeper"])
