"""What a reader must know before any number: photos, weights and settings that are not the paper's."""

import dataclasses

import pytest
from made_up import changed, make_run

from flowerlib.data.photos import paper_fingerprint
from flowerlib.report import cards
from flowerlib.report.grouping import Session
from flowerlib.runs import Device, EarlierEpochs

# the fingerprint of the paper's photos, as every run on them has recorded it
PAPER = "8bb5e8b610c997e149f2a69fa5e0feed99a54e6488fef35ff300f074be0a85d4"


def session(source="imagenet", trained_on=None, *, name="resnet18-bs32", file="own.pth", dataset=None, **settings):
    run = changed(
        make_run("resnet18-bs32", weights="none" if source == "none" else "imagenet", **settings),
        dataset={"name": "flowers", "fingerprint": PAPER} | (dataset or {}),
        weights={"source": source, "file": file, "sha256": file, "trained_on": trained_on},
    )
    return Session(name, (dataclasses.replace(run, name=name),))


def test_the_papers_photos_weights_and_settings_need_no_mark():
    assert paper_fingerprint() == PAPER
    papers = session("imagenet", "ImageNet")
    assert cards.mark([papers]) == cards.other_weights([papers]) == cards.changed_settings(papers) == ""


@pytest.mark.parametrize(
    ("start", "weights", "settings"),
    [
        (session("file", "birds_2"), r"weights trained on birds\_2", ""),
        (session("file"), "weights from own.pth", ""),
        (session("none"), "random weights", ""),
        (session(dataset={"fingerprint": "one photo less"}), "", ""),
        (session(rotation=0), "", "rotation 0 instead of 30"),
        (session(learning_rate=1e-5), "", "learning rate 1e-05 instead of .001"),
    ],
)
def test_what_is_not_the_papers_is_marked_in_captions(start, weights, settings):
    assert cards.mark([start]) == " †"
    assert cards.other_weights([start]) == weights
    assert cards.changed_settings(start) == settings


def test_where_sessions_start_differently_they_are_named():
    mixed = [session("imagenet"), session("none", name="random-start", batch_size=64)]
    for order in (mixed, mixed[::-1]):
        assert cards.other_weights(order) == "random weights (ResNet-18 (batch size 64))"
    others = "ImageNet weights (ResNet-18 (batch size 32)) and random weights (ResNet-18 (batch size 64))"
    assert cards.starts(mixed) == others
    assert cards.starts(mixed[:1]) == "ImageNet weights"


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        (session(batch_size=64), "batch size 64 instead of 32"),
        (session(model="resnet34", flip=0), "ResNet-34 instead of ResNet-18 and flip 0 instead of .1"),
        (session("none"), "random weights instead of ImageNet weights"),
        (session(seed=3, repeats=1), "the same settings"),
    ],
)
def test_sessions_differ_in_what_decides_a_result(ours, said):
    assert cards.differences(ours, session()) == said


def test_earlier_epochs_computed_elsewhere_are_told():
    run = session().runs[0]
    there = EarlierEpochs(
        device=Device(type="cpu", name="there", threads=2), versions={"torch": "2.15.0"}, commit=None, epochs=3
    )
    told = cards.computers([Session(run.name, (changed(run, earlier=(there,)),))])
    assert told == [
        "torch 2.15.0; cpu (cpu, 2 threads) (resnet18-bs32)",
        "torch 2.15.0; there (cpu, 2 threads) (resnet18-bs32)",
    ]


def test_many_classes_are_summed_up():
    few = session(dataset={"classes": {"a": 1, "b_c": 2}})
    assert cards.classes_in_words(few) == "1 a, 2 b_c"
    many = session(dataset={"classes": {str(number): number for number in range(1, 60)}})
    assert cards.classes_in_words(many) == "from 1 to 59 in a class"
