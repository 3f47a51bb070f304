"""What the report says of the sessions: a reader must not take other photos or weights for the paper's."""

import dataclasses

import pytest
from made_up import make_run

from flowerlib import sections
from flowerlib.dataset import paper_fingerprint
from flowerlib.experiment import Experiment
from flowerlib.metrics import Session


def session(source, trained_on=None):
    run = make_run(
        "resnet18-bs32", **Experiment().settings() | {"weights": "none" if source == "none" else "imagenet"}
    )
    run.info["dataset"] = {"name": "flowers", "fingerprint": paper_fingerprint()}
    run.info["weights"] = {"source": source, "file": "own.pth", "sha256": None, "trained_on": trained_on}
    return Session(run.name, (run,))


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (session("file", "birds_2"), r"Initial weights: trained on birds\_2, not ImageNet\'s."),
        (session("file"), r"Initial weights: of unknown origin, not ImageNet\'s."),
        (session("none"), "Initial weights: random."),
    ],
)
def test_weights_that_are_not_imagenets_are_named_on_the_title_page_and_in_captions(start, said):
    assert said in sections.notice([start])
    assert sections.captioned([start], "Losses.") == f"Losses. {said}"


def test_imagenets_weights_need_no_word():
    start = session("imagenet", "ImageNet")
    assert sections.captioned([start], "Losses.") == "Losses."
    assert "weights" not in sections.notice([start])


def test_sessions_differ_in_where_their_weights_come_from_not_in_what_the_setting_is_called():
    assert sections.describe_changes(session("imagenet"), session("file", "birds")) == (
        r"weights ImageNet\'s instead of trained on birds, not ImageNet\'s"
    )
    assert sections.describe_changes(session("file", "birds"), session("file", "birds")) == "nothing"


def test_the_papers_photos_are_known_by_their_bytes_not_by_their_folders_name():
    start = session("imagenet")
    assert "Photos" not in sections.notice([start])
    start.info["dataset"]["fingerprint"] = "of one photo less"
    assert "not exactly the paper's" in sections.notice([start])
    start.info["dataset"] |= {"name": "my-flowers", "fingerprint": paper_fingerprint()}
    assert "Photos" not in sections.notice([start])


def test_sessions_that_share_their_random_changes_are_named():
    first, second = session("imagenet"), dataclasses.replace(session("imagenet"), name="other_one")
    assert r"resnet18-bs32, other\_one (seed 0)" in sections.describe_draws([first, second])
    second.info["settings"]["seed"] = 1
    assert sections.describe_draws([first, second]).startswith("No two of our sessions")
