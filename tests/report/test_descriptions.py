"""What the report says of the sessions: a reader must not take other photos or weights for the paper's."""

import dataclasses

import pytest
from made_up import changed, make_run

from flowerlib.data.photos import paper_fingerprint
from flowerlib.report import descriptions
from flowerlib.runs import Device, EarlierEpochs, Session

# of the photos that issue from the paper's data set, as every run on them has recorded it
PAPER = "8bb5e8b610c997e149f2a69fa5e0feed99a54e6488fef35ff300f074be0a85d4"


def session(source, trained_on=None, *, name="resnet18-bs32", file="own.pth", **settings):
    weights = "none" if source == "none" else "imagenet"
    run = changed(
        make_run("resnet18-bs32", weights=weights, **settings),
        dataset={"name": "flowers", "fingerprint": PAPER},
        weights={"source": source, "file": file, "sha256": file, "trained_on": trained_on},
    )
    return Session(name, (dataclasses.replace(run, name=name),))


# ---- weights


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (session("file", "birds_2"), r"Initial weights other than the course report's: trained on birds\_2."),
        (session("file"), r"Initial weights other than the course report's: the file own.pth."),
        (session("none"), r"Initial weights other than the course report's: random."),
    ],
)
def test_weights_that_are_not_the_papers_are_named_on_the_title_page_and_in_captions(start, said):
    assert said in descriptions.notice([start])
    assert descriptions.captioned([start], "Losses.") == f"Losses. {said}"


def test_imagenets_weights_need_no_word():
    start = session("imagenet", "ImageNet")
    assert descriptions.captioned([start], "Losses.") == "Losses."
    assert "weights" not in descriptions.notice([start])


def test_where_some_sessions_have_the_papers_weights_the_others_are_named():
    mixed = [session("imagenet"), session("none", name="random-start")]
    for order in (mixed, mixed[::-1]):
        assert (
            descriptions.weights_note(order)
            == "Initial weights other than the course report's: random (random-start)."
        )
    mixed[0] = session("file", "birds")
    assert (
        descriptions.weights_note(mixed)
        == "Initial weights other than the course report's: trained on birds; random (random-start)."
    )


@pytest.mark.parametrize(
    ("ours", "first", "said"),
    [
        (session("none"), session("file", "birds"), "initial weights random instead of trained on birds"),
        (session("file", "birds"), session("imagenet"), r"initial weights trained on birds instead of ImageNet\'s"),
        (
            session("file", "birds", file="b.pth"),
            session("file", "birds", file="a.pth"),
            "initial weights trained on birds (b.pth) instead of trained on birds (a.pth)",
        ),
        (session("file", "birds"), session("file"), "nothing"),  # the text was written between the two runs
        (session("file", file="b.pth", model="resnet34"), session("file"), "model resnet34 instead of resnet18"),
    ],
)
def test_sessions_differ_in_the_weights_themselves_not_in_what_the_setting_is_called(ours, first, said):
    assert descriptions.describe_changes(ours, first) == said


# ---- photos, draws, machines


def test_the_papers_photos_are_known_by_their_bytes_not_by_their_folders_name():
    assert paper_fingerprint() == PAPER
    run = session("imagenet").runs[0]

    def told(**dataset):
        return descriptions.notice([Session(run.name, (changed(run, dataset=dataset),))])

    assert "Photos" not in told()
    assert "flowers, not exactly the course report's" in told(fingerprint="of one photo less")
    assert "cats, not the course report's" in told(fingerprint="of one photo less", name="cats")
    assert "Photos" not in told(name="cats")
    cats = Session(run.name, (changed(run, dataset={"name": "cats"}),))
    assert descriptions.describe_task(cats) == "photographs of flowers"


def test_sessions_that_share_their_random_changes_are_named():
    first, other = session("imagenet"), session("imagenet", name="other_one", batch_size=64)
    assert r"resnet18-bs32, other\_one (seed 0)" in descriptions.describe_draws([first, other])
    for different in (session("imagenet", seed=1), session("imagenet", rotation=0)):
        assert descriptions.describe_draws([first, different]).startswith("No two of our sessions")
    assert descriptions.describe_draws([first]) == ""


def test_the_report_says_where_earlier_epochs_were_computed():
    run = session("imagenet").runs[0]
    earlier = (
        EarlierEpochs(
            device=Device(type="cpu", name=name, threads=2), versions={"torch": "2.15.0"}, commit=None, epochs=epochs
        )
        for name, epochs in (("there", 3), ("elsewhere", 7))
    )
    said = descriptions.provenance([Session(run.name, (changed(run, earlier=tuple(earlier)),))])
    assert "Epochs 0 to 2 were computed with torch 2.15.0; cpu (there, 2 threads)." in said
    assert "Epochs 3 to 6 were computed with torch 2.15.0; cpu (elsewhere, 2 threads)." in said
