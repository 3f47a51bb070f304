import math

import pytest
from made_up import changed, make_run

from flowerlib.report import phrases
from flowerlib.report.grouping import Session


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        (phrases.decimal(0.9321), ".932"),
        (phrases.decimal(-0.0351, signed=True), "−.035"),
        (phrases.decimal(0.019, signed=True), "+.019"),
        (phrases.decimal(-0.0001), ".000"),
        (phrases.decimal(1.774, 2), "1.77"),
        (phrases.decimal(math.nan), "–"),
        (phrases.interval(-0.035, -0.056, -0.014), "−.035 [−.056, −.014]"),
        (phrases.whole(2848), "2,848"),
        (phrases.count(3, "session"), "three sessions"),
        (phrases.count(1, "photo"), "one photo"),
        (phrases.count(2848, "photo"), "2,848 photos"),
        (phrases.listing(["a", "b", "c"]), "a, b and c"),
        (phrases.network("resnet18"), "ResNet-18"),
        (phrases.network("efficientnet_lite0"), "EfficientNet-Lite0"),
        (phrases.network("vit_b_16"), r"vit\_b\_16"),
    ],
)
def test_numbers_and_names_are_printed_in_one_style(text, printed):
    assert text == printed


def test_sessions_are_told_apart_by_what_differs():
    sessions = [Session(name, (make_run(name),)) for name in ("resnet18-bs32", "resnet18-bs64", "resnet34-bs32")]
    assert [phrases.label(each, sessions) for each in sessions] == [
        "ResNet-18 (batch size 32)",
        "ResNet-18 (batch size 64)",
        "ResNet-34",
    ]
    slow = Session("slow", (make_run("resnet18-bs32", learning_rate=0.1),))
    assert phrases.label(slow, [*sessions, slow]) == "slow"


def test_what_a_network_starts_from_is_said():
    run = make_run("resnet18-bs32")
    assert phrases.start(run.info) == "ImageNet weights"
    own = {"source": "file", "file": "a_b.pth", "trained_on": None}
    assert phrases.start(changed(run, weights=own).info) == r"weights from a\_b.pth"
    assert phrases.start(changed(run, weights=own | {"trained_on": "birds"}).info) == "weights trained on birds"


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.00166, ".0017"), (0.0347, ".035"), (0.744, ".74"), (1.0, "1.00"), (0.00099, "< .001"), (math.nan, "–")],
)
def test_a_p_value_has_two_digits(p, text):
    assert phrases.p_text(p) == text
