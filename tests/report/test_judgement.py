import dataclasses
import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
from made_up import QUICK, SLOW, changed, make_run, with_right

from flowerlib.data.duplicates import LEFT_OUT
from flowerlib.data.photos import paper_fingerprint
from flowerlib.report import ablations, judgement, mistakes
from flowerlib.report.display import Figure, Prose, Table, latex_text
from flowerlib.runs import Session

matplotlib.use("Agg")
PAIRS = pd.DataFrame(columns=["kind", "first", "second", "distance"])


def session(name, dataset="flowers", repeats=(), **settings):
    run = make_run(name, **settings)
    fingerprint = paper_fingerprint() if dataset == "flowers" else "other photos"
    facts = {"name": dataset, "photos": 5000, "classes": {"aster": 5000, "broom": 0}, "fingerprint": fingerprint}
    return Session(name, (dataclasses.replace(changed(run, dataset=facts), repeats=tuple(repeats)),))


def text(parts):
    return " ".join(part.markdown for part in parts if isinstance(part, Prose))


@pytest.fixture
def three():
    return [session("resnet18-bs32"), session("resnet18-bs64"), session("resnet34-bs32")]


def test_the_verdicts_in_the_text_follow_from_the_runs(three):
    def said(better):
        runs = [*three[:2], session("resnet34-bs32", table=with_right(900 + 50 * better))]
        findings = judgement.judged(runs)
        groups = re.findall(r"([A-Z][^:“”]*): ((?:“[^”]*”(?:; )?)+)", judgement.conclusion(runs, findings))
        (heading,) = [heading for heading, claims in groups if "ResNet-34 achieves higher accuracy" in claims]
        return heading, "ResNet-34 achieves" in judgement.summarize(findings)

    assert said(better=1) == ("The published tables leave undecided, and our sessions support", True)
    assert said(better=-1) == ("The published tables leave undecided, and our sessions speak against", True)
    assert said(better=0) == ("The published tables and our sessions both leave undecided", False)


def test_few_seeds_are_said_to_speak_of_these_runs_alone(three):
    several = [
        Session(each.name, tuple(session(each.name, seed=seed).runs[0] for seed in range(3))) for each in three
    ]
    for sessions, few in ((three, True), (several, False)):
        findings = judgement.judged(sessions)
        for said in (judgement.abstract(sessions, findings), judgement.conclusion(sessions, findings)):
            assert ("this speaks of these runs, not of the method" in said) == few


def test_every_claim_stands_in_the_tables_and_the_figure(three):
    findings = judgement.judged(three)
    parts = judgement.claims_part(three, findings)
    tables = {part.label: part.tabular for part in parts if isinstance(part, Table)}
    assert all(latex_text(finding.claim.statement.split(".")[0]) in tables["tab:claims"] for finding in findings)
    assert tables["tab:verdicts"].count("published") == tables["tab:verdicts"].count("our runs") == 8
    assert sum(isinstance(part, Figure) for part in parts) == 1


@pytest.mark.parametrize(
    ("scatter", "said"),
    [
        (0.6, "None is shown to have jumped more than the protocol"),
        (0.05, "resnet18-bs32 and resnet18-bs64 and resnet34-bs32 jumped more than the protocol"),
    ],
)
def test_the_protocols_noise_is_judged_by_its_intervals(scatter, said):
    # .9 of 1,000 pictures has a binomial deviation of .0095; the published ones are .88, .70 and .52 of theirs
    wave = np.resize([1.0, -1.0], 40) / np.std(np.resize([1.0, -1.0], 40), ddof=1)
    run = session("resnet18-bs32", repeats=0.9 + scatter * 0.00949 * wave)
    assert said in text(judgement.noise_part([run])).replace("\\", "")
    ratios = re.search(r"scatter ([.0-9]+) \[", text(judgement.noise_part([run])))
    assert float(ratios[1]) == pytest.approx(0.88 / scatter, rel=0.02)
    assert judgement.noise_part([session("resnet18-bs32", dataset="roses", repeats=0.9 + wave / 100)]) == []


def test_without_repeats_nothing_is_said_of_the_noise(three):
    assert judgement.noise_part(three) == []


def test_only_the_papers_photos_are_set_beside_its_accuracies(three):
    table = judgement.published_part(three)[1]
    assert "resnet34-bs32" in table.tabular
    assert f"{SLOW[-1]:.3f}" in table.tabular
    assert "ImageNet" not in text(judgement.published_part(three))
    assert text(judgement.published_part([session("resnet18-bs32", dataset="roses")])).startswith("These sessions")


def test_other_weights_than_the_papers_are_a_reason_for_other_accuracies(three):
    own = changed(three[0].runs[0], weights={"source": "file", "trained_on": "birds"})
    three[0] = Session(own.name, (own,))
    said = text(judgement.published_part(three))
    assert "The published networks started from ImageNet's weights" in said
    assert "trained on birds" in said


def test_pictures_that_stand_there_twice_are_counted_and_named(three):
    pairs = pd.DataFrame(
        [
            ("identical", "aster/1.jpg", "broom/1.jpg", 0.0),  # under two labels
            ("similar", "aster/2.jpg", "aster/train.jpg", 0.1),  # across the split
            ("similar", "aster/3.jpg", "aster/4.jpg", 0.2),  # both in the validation
        ],
        columns=PAIRS.columns,
    )
    parts = mistakes.duplicates_part(three, pairs)
    assert "byte for byte: 1." in text(parts)
    assert "nothing moved: 2." in text(parts)
    assert "under two labels: 1;" in text(parts)
    assert "tests little: 2." in text(parts)
    listing, accuracy = (part.tabular for part in parts if isinstance(part, Table))
    assert "train.jpg" in listing
    assert "3.jpg" not in listing
    assert "998" in accuracy
    assert "`flowerlib run`" in text(mistakes.duplicates_part(three, None))
    pairs.attrs[LEFT_OUT] = 1234
    assert "1,234 pairs of pictures that look somewhat alike were not compared" in text(
        mistakes.duplicates_part(three, pairs)
    )
    assert not [part for part in mistakes.duplicates_part(three, PAIRS) if isinstance(part, Table)]


def test_without_the_checkpoint_no_picture_is_shown(three):
    said = text(mistakes.gallery_part(three, PAIRS, gallery=True))
    assert said == r"No pictures are shown here: the network of resnet18-bs32 (last.pt) is not at hand."
    assert mistakes.gallery_part(three, PAIRS, gallery=False) == []


def test_ablations_are_held_against_the_first_of_them():
    base = session("resnet18-bs32", image_size=224, flip=0.1)
    worse = session("resnet18-bs32", image_size=224, flip=0, table=with_right(700), curve=QUICK)
    worse = dataclasses.replace(worse, name="no-flip")
    table = next(part for part in ablations.ablation_part([base, worse]) if isinstance(part, Table))
    assert "-0.200 {[}" in table.tabular
    assert ablations.ablation_part([base]) == ablations.ablation_part([]) == []
    assert "transferred" not in text(ablations.ablation_part([base, worse]))
    worse = Session(worse.name, (changed(worse.runs[0], weights={"source": "none"}),))
    assert "Without transferred weights (no-flip) the clean accuracy changes by -0.200" in text(
        ablations.ablation_part([base, worse])
    ).replace("\\", "")


def test_the_worst_mistakes_and_every_class_are_named(three):
    parts = mistakes.error_part(three)
    tables = {part.label: part.tabular for part in parts if isinstance(part, Table)}
    assert all(name in tables["tab:classes"] for name in ("aster", "broom"))
    assert tables["tab:mistakes"].count("aster/") == 8
    assert "right on 900 of 1000" in text(parts)
