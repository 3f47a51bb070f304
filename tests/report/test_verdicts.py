import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import EARLIER, EPOCHS, PHOTOS, QUICK, SLOW, ZIGZAG, changed, make_run, with_right
from scipy import stats

from flowerlib.report.claims import (
    AUGMENTATION,
    CLAIMS,
    FULL,
    SMALL_STEP,
    Claim,
    ablation_sessions,
    our_sessions,
    paper_sessions,
)
from flowerlib.report.curves import convergence_epoch
from flowerlib.report.measures import (
    CONVERGED_BY,
    MIN_SEEDS,
    NOISE_SHARE,
    Evaluation,
    evaluate,
    noise_correlation,
    noise_share,
    share_draws,
)
from flowerlib.report.paper.published import SESSIONS, published_runs
from flowerlib.report.phrases import decimal, interval
from flowerlib.report.statistics import t_estimate
from flowerlib.report.verdicts import (
    CONTRADICTED,
    METHOD,
    NOT_AFTER_CORRECTION,
    OURS,
    PUBLISHED,
    SUPPORTED,
    THESE_RUNS,
    UNDECIDED,
    Finding,
    agreed,
    corrected,
    findings_table,
    judge_all,
    letters,
    number,
    scopes,
    seeds_needed,
    shown_claims,
    told,
    verdict,
    what_decides,
)
from flowerlib.report.verdicts import judge as judge_sessions
from flowerlib.runs import EarlierEpochs, Run

CLAIM = {claim.key: claim for claim in CLAIMS}
PAIRED = [claim for claim in CLAIMS if len(claim.sessions) == 2 and not claim.of_ablations]


def judge(claim, runs, evidence=OURS):
    """Judge a claim of the paper's sessions by runs of them."""
    return judge_sessions(claim, paper_sessions(runs), evidence)


# ---- verdicts


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.03, -0.01, SUPPORTED),
        (0.01, 0.03, CONTRADICTED),
        (-0.09, -0.05, CONTRADICTED),
        (-0.05, -0.01, UNDECIDED),
        (-0.03, 0.0, UNDECIDED),
        (-0.09, 0.09, UNDECIDED),
        (0.0, 0.0, UNDECIDED),
        (math.nan, math.nan, UNDECIDED),
    ],
)
def test_a_verdict_needs_the_whole_interval(low, high, expected):
    assert verdict(low, high, (-0.04, 0)) == expected


BOUNDS = st.tuples(st.floats(-10, 10), st.floats(-10, 10)).map(sorted)


@given(BOUNDS)
def test_of_two_opposite_claims_the_verdicts_are_opposite(bounds):
    low, high = bounds
    opposite = {SUPPORTED: CONTRADICTED, CONTRADICTED: SUPPORTED, UNDECIDED: UNDECIDED}
    assert verdict(low, high, (0, math.inf)) == opposite[verdict(low, high, (-math.inf, 0))]
    assert verdict(-high, -low, (-math.inf, 0)) == verdict(low, high, (0, math.inf))


@given(BOUNDS, BOUNDS, st.floats(0, 1))
def test_a_narrower_interval_never_takes_a_verdict_back(bounds, claimed, share):
    low, high = bounds
    before = verdict(low, high, claimed)
    middle = (low + high) / 2
    after = verdict(middle - share * (middle - low), middle + share * (high - middle), claimed)
    assert before in (UNDECIDED, after)


@given(BOUNDS, st.floats(-5, 5))
def test_a_one_sided_claim_is_decided_where_its_p_is_below_a_twentieth(bounds, edge):
    value, deviation = bounds[0], 0.1 + abs(bounds[1])
    estimate = t_estimate(value, [(deviation**2, 7)])
    decided = verdict(estimate.low, estimate.high, (-math.inf, edge)) != UNDECIDED
    assert decided == (estimate.p(edge) < 0.05)


# ---- claims on the published tables


@pytest.fixture(scope="module")
def published():
    return {claim.key: judge(claim, published_runs(), PUBLISHED) for claim in CLAIMS}


def test_published_values_by_hand(published):
    # Table 1, epochs 10-19: steps .037 .010 .004 .021 .023 .012 .002 .011 .021, about a mean of .9161
    noise = NOISE_SHARE * math.sqrt(0.9161 * 0.0839 / 570) * 2 / math.sqrt(math.pi)
    assert published["b"].value == pytest.approx(0.141 / 9 / noise, rel=1e-4)
    # epochs 14-19: Table 1 .930 .907 .919 .921 .932 .911, Table 2 .895 .893 .881 .898 .875 .895
    assert published["e1"].value == pytest.approx((5.337 - 5.520) / 6)
    # Table 3: .909 .925 .911 .914 .921 .916
    assert published["g"].value == pytest.approx((5.496 - 5.520) / 6)
    # Table 1 from .884 (epoch 3) to .907, the mean of the isotonic fit of .914 .912 .895; the aim is .920 - .02
    assert published["a"].value == pytest.approx(3 + (0.900 - 0.884) / (0.907 - 0.884))
    assert published["d"].value == pytest.approx(-0.0054, abs=5e-5)
    assert (published["d"].low, published["d"].high) == pytest.approx((-0.0096, -0.0012), abs=5e-5)


def test_the_published_verdicts(published):
    assert {key: finding.verdict for key, finding in published.items()} == {
        **dict.fromkeys(CLAIM, UNDECIDED),
        **dict.fromkeys(["a", "d", "e1"], SUPPORTED),
    }
    for finding in published.values():
        if not math.isnan(finding.value):
            assert finding.low <= finding.value <= finding.high
            assert finding.scope == THESE_RUNS
            assert finding.measure.protocol in ("augmented validation", "training")
    assert "unrelated validation photos" in published["e1"].note


def test_neither_times_nor_ablations_were_published(published):
    assert published["h"].note == "no training times"
    assert published["h"].decides == "training times"
    assert {published[key].note for key in "ij"} == {"no such session published"}


# ---- claims on runs: other runs, other verdicts


def both(claim: Claim, first, second, **same):
    """Runs of a claim's two sessions, told apart by what ``first`` and ``second`` say."""
    return [make_run(claim.sessions[0], **first, **same), make_run(claim.sessions[1], **second, **same)]


def rough(size):
    return {"training": QUICK + size * ZIGZAG}


CASES = {
    "c": ({"curve": SLOW}, {"curve": QUICK}, {"curve": EARLIER}),
    "f": ({"curve": SLOW}, {"curve": QUICK}, {"curve": EARLIER}),
    "d": (rough(0.02), rough(0.002), {"training": QUICK + 0.02 * np.roll(ZIGZAG, 1)}),
    "e1": ({"table": with_right(920)}, {"table": with_right(900)}, {"table": with_right(917)}),
    "g": ({"table": with_right(900)}, {"table": with_right(920)}, {"table": with_right(903)}),
    "h": ({"seconds": 10.0}, {"seconds": 20.0}, {"seconds": 25.02}),
}


@pytest.mark.parametrize("key", CASES)
def test_a_claim_is_supported_contradicted_and_undecided_as_the_runs_are(key):
    claim = CLAIM[key]
    first, second, near = CASES[key]
    supported, contradicted, undecided = (
        judge(claim, both(claim, *case)) for case in [(first, second), (second, first), (first, near)]
    )
    assert [supported.verdict, contradicted.verdict, undecided.verdict] == [SUPPORTED, CONTRADICTED, UNDECIDED]
    assert supported.low < supported.value < supported.high
    assert supported.p < 0.05
    assert contradicted.p < 0.05
    assert undecided.p > 0.05
    assert supported.decides == contradicted.decides == ""
    assert undecided.decides


@pytest.mark.parametrize("key", [key for key in CASES if key != "h"])
def test_swapped_sessions_have_the_opposite_difference(key):
    claim = CLAIM[key]
    first, second, _ = CASES[key]
    one, other = judge(claim, both(claim, first, second)), judge(claim, both(claim, second, first))
    assert one.value == pytest.approx(-other.value)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=0.15 * (one.high - one.low))


def test_no_claim_of_a_difference_is_decided_by_the_same_run_twice():
    for claim in PAIRED:
        finding = judge(claim, both(claim, {}, {}))
        if claim.key == "h":
            assert (finding.value, finding.verdict) == (1, CONTRADICTED)
        elif claim.key != "e2":
            assert (finding.value, finding.verdict) == (0, UNDECIDED)


@pytest.mark.parametrize(
    ("lost", "lower", "slight"),
    [
        (5, UNDECIDED, SUPPORTED),
        (6, SUPPORTED, SUPPORTED),
        (15, SUPPORTED, SUPPORTED),
        (40, SUPPORTED, UNDECIDED),
        (80, SUPPORTED, CONTRADICTED),
        (0, UNDECIDED, SUPPORTED),
        (-40, CONTRADICTED, SUPPORTED),
    ],
)
def test_direction_and_size_of_a_decrease_are_two_claims(lost, lower, slight):
    runs = both(CLAIM["e1"], {"table": with_right(900)}, {"table": with_right(900 - lost)})
    first, second = judge(CLAIM["e1"], runs), judge(CLAIM["e2"], runs)
    assert (first.value, first.low, first.high) == (second.value, second.low, second.high)
    assert (first.verdict, second.verdict) == (lower, slight)


@pytest.mark.parametrize(
    ("curve", "expected"),
    [(QUICK, SUPPORTED), (np.linspace(0.2, 0.9, 20), CONTRADICTED), (0.9 - 0.4 * np.exp(-EPOCHS / 3.6), UNDECIDED)],
)
def test_convergence_is_judged_by_its_interval(curve, expected):
    assert judge(CLAIM["a"], [make_run("resnet18-bs32", curve=curve)]).verdict == expected


@pytest.mark.parametrize(("times", "expected"), [(0.6, SUPPORTED), (SMALL_STEP, UNDECIDED), (3.5, CONTRADICTED)])
def test_fluctuations_are_held_against_the_protocols_own(times, expected):
    noise = 0.01 * np.random.default_rng(0).standard_normal(20)
    fixed = 0.6 + noise  # the same network again and again: at another accuracy another scatter
    curve = QUICK.copy()
    curve[10:] = 0.9 + noise[:10] * times * np.abs(np.diff(noise)).mean() / np.abs(np.diff(noise[:10])).mean()
    finding = judge(CLAIM["b"], [make_run("resnet18-bs32", curve=curve, evaluations=fixed)])
    assert finding.value == pytest.approx(times)
    assert finding.verdict == expected


def test_without_repeated_evaluations_the_scatter_is_a_share_of_the_binomial():
    for times, expected in ((0.6, SUPPORTED), (3.5, CONTRADICTED)):
        step = times * NOISE_SHARE * math.sqrt(0.9 * 0.1 / PHOTOS) * 2 / math.sqrt(math.pi)
        curve = np.concatenate([QUICK[:10], 0.9 + step / 2 * np.resize([1, -1], 10)])
        finding = judge(CLAIM["b"], [make_run("resnet18-bs32", curve=curve)])
        assert (finding.value, finding.verdict) == (pytest.approx(times, rel=1e-3), expected)


def test_the_measured_scatter_narrows_the_convergence():
    wide, narrow = (
        judge(CLAIM["a"], [make_run("resnet18-bs32", evaluations=0.9 + scatter * np.resize([1, -1], 20))])
        for scatter in (0.009, 0.002)
    )
    assert narrow.high - narrow.low < 0.5 * (wide.high - wide.low)
    run = make_run("resnet18-bs32", evaluations=0.9 + 0.005 * np.resize([1, -1], 20))
    assert noise_share(run) == pytest.approx(0.005 * math.sqrt(20 / 19) / math.sqrt(0.9 * 0.1 / PHOTOS))
    assert noise_share(replace(run, repeats=run.repeats[:9])) == NOISE_SHARE


def test_shared_draws_are_paired_by_epoch():
    random = np.random.default_rng(0)
    fixed = 0.9 + 0.01 * random.standard_normal(20)
    pair = [
        make_run(name, curve=curve, evaluations=fixed + 0.003 * random.standard_normal(20))
        for name, curve in zip(CLAIM["c"].sessions, (SLOW, EARLIER), strict=True)
    ]
    assert share_draws(*pair)
    assert noise_correlation(*pair) == pytest.approx(np.corrcoef(pair[0].repeats, pair[1].repeats)[0, 1])
    others = [changed(pair[1], split={"fingerprint": "other photos"}), changed(pair[1], draws=2)]
    others.append(make_run(CLAIM["c"].sessions[1], flip=0.5, curve=EARLIER, evaluations=fixed))
    others.append(make_run(CLAIM["c"].sessions[1], seed=1, curve=EARLIER, evaluations=fixed))
    for other in others:
        assert not share_draws(pair[0], other)
        assert noise_correlation(pair[0], other) == 0
    paired, unpaired = judge(CLAIM["c"], pair), judge(CLAIM["c"], [pair[0], others[0]])
    assert paired.high - paired.low < 0.8 * (unpaired.high - unpaired.low)
    assert "paired by epoch" in paired.note
    assert "paired" not in unpaired.note


def test_the_published_sessions_share_nothing():
    first, second, third = published_runs()
    assert not share_draws(first, second)
    assert not share_draws(first, third)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(1.4, CONTRADICTED), (1.6, SUPPORTED), (2.4, SUPPORTED), (2.6, CONTRADICTED)]
)
def test_double_is_from_one_and_a_half_to_two_and_a_half(seconds, expected):
    assert judge(CLAIM["h"], both(CLAIM["h"], {"seconds": 1.0}, {"seconds": seconds})).verdict == expected


def test_epochs_in_which_the_machine_did_something_else_do_not_decide_the_time():
    runs = both(CLAIM["h"], {"seconds": 10.0}, {"seconds": 20.0})
    disturbed = runs[0].metrics["train_seconds"].to_numpy(copy=True)
    disturbed[[3, 4, 11]] *= 5
    slow = [replace(runs[0], metrics=runs[0].metrics.assign(train_seconds=disturbed)), runs[1]]
    assert judge(CLAIM["h"], slow).value == pytest.approx(judge(CLAIM["h"], runs).value, rel=0.02)
    assert judge(CLAIM["h"], slow).verdict == SUPPORTED


# ---- correction


def with_p(p, said=SUPPORTED):
    return Finding(CLAIM["c"], OURS, CLAIM["c"].measure, value=0.0, p=p, verdict=said)


def test_what_does_not_outlive_holms_correction_is_said():
    # two tests: the lesser p is doubled, the greater is not, but is no less than the doubled one
    said = [finding.corrected for finding in corrected([with_p(0.024), with_p(0.049)])]
    assert said == [SUPPORTED, SUPPORTED]
    said = [finding.corrected for finding in corrected([with_p(0.026), with_p(0.049, CONTRADICTED)])]
    assert said == [f"{SUPPORTED}, not after correction", f"{CONTRADICTED}, not after correction"]
    assert [each.corrected for each in corrected([with_p(0.5, UNDECIDED), with_p(math.nan, UNDECIDED)])] == [
        UNDECIDED
    ] * 2


def test_claims_without_a_value_do_not_count_in_the_correction():
    said = [finding.corrected for finding in corrected([with_p(0.04), with_p(math.nan, UNDECIDED)])]
    assert said == [SUPPORTED, UNDECIDED]


def test_the_published_tables_are_not_corrected():
    findings = judge_all([make_run(name) for name in SESSIONS])
    assert all(not finding.corrected for finding in findings if finding.evidence == PUBLISHED)
    assert all(finding.corrected for finding in findings if finding.evidence == OURS)


# ---- what would decide


def test_photos_that_would_decide():
    # 4 of 1,000 photos above 0, with an interval of ±8: four times the photos
    result = Evaluation(t_estimate(0.004, [(0.004**2, 1e9)]), 1, 1000, "")
    half = 1.959964 * 0.004
    assert what_decides(result, [0.0], "validation photos") == "about 3,900 validation photos"
    assert 1000 * (half / 0.004) ** 2 == pytest.approx(3841, abs=1)
    assert what_decides(result, [0.004], "validation photos") == "no number of validation photos at this value"
    assert what_decides(result, [0.00401], "validation photos") == "more than 1,000,000 validation photos"
    assert what_decides(result, [0.0, -1.0], "validation photos") == "about 3,900 validation photos"


@given(st.floats(0.3, 3))
def test_seeds_that_would_decide_are_the_fewest_that_do(distance):
    seeds = seeds_needed(1.0, distance)

    def half(number):
        return stats.t.ppf(0.975, number - 1) / math.sqrt(number)

    assert half(seeds) < distance
    assert seeds == MIN_SEEDS or half(seeds - 1) >= distance


def test_one_seeds_curve_counts_as_one_seed():
    result = Evaluation(t_estimate(1.0, [(1.0, 1e9)]), 1, 570, "")
    assert what_decides(result, [0.0], "seeds") == f"about {seeds_needed(1.0, 1.0)} seeds"
    three = Evaluation(t_estimate(1.0, [(1.0, 2)]), 3, 570, "")  # a deviation of sqrt(3) between seeds
    assert what_decides(three, [0.0], "validation photos") == f"about {seeds_needed(math.sqrt(3), 1.0)} seeds"
    assert what_decides(result, [0.99], "seeds") == "more than 1,000 seeds"


# ---- several seeds


def seeds_of(claim, firsts, seconds, key):
    return [
        make_run(name, seed=seed, **{key: value})
        for name, values in zip(claim.sessions, (firsts, seconds), strict=True)
        for seed, value in enumerate(values)
    ]


def test_three_seeds_give_the_paired_t_interval():
    claim = CLAIM["f"]
    firsts = [0.9 - 0.4 * np.exp(-EPOCHS / rate) for rate in (4, 3, 5)]
    seconds = [0.9 - 0.4 * np.exp(-EPOCHS / rate) for rate in (2.5, 1.2, 3)]
    finding = judge(claim, seeds_of(claim, firsts, seconds, "curve"))
    epochs = [[convergence_epoch(curve, 14) for curve in curves] for curves in (firsts, seconds)]
    expected = stats.ttest_rel(epochs[1], epochs[0]).confidence_interval()
    assert (finding.low, finding.high) == pytest.approx(tuple(expected))
    assert finding.verdict == SUPPORTED
    assert "3 seeds" in finding.note
    assert finding.scope == METHOD
    assert finding.p == pytest.approx(stats.ttest_rel(epochs[1], epochs[0]).pvalue)


def test_seeds_that_contradict_one_another_decide_nothing():
    claim = CLAIM["f"]
    finding = judge(claim, seeds_of(claim, [SLOW, QUICK, SLOW], [QUICK, SLOW, QUICK], "curve"))
    assert finding.verdict == UNDECIDED


def test_times_of_three_seeds_are_compared_as_ratios():
    claim = CLAIM["h"]
    firsts, seconds = [10, 11, 12], [20, 23, 23]
    finding = judge(claim, seeds_of(claim, firsts, seconds, "seconds"))
    ratios = np.log(np.array(seconds) / np.array(firsts))
    expected = np.exp(stats.ttest_1samp(ratios, 0).confidence_interval())
    assert (finding.low, finding.high) == pytest.approx(tuple(expected))
    assert finding.value == pytest.approx(np.exp(ratios.mean()))


def test_accuracies_over_seeds_count_the_photos_too():
    claim = CLAIM["g"]
    # the seeds agree to the photo, so that all doubt is in the photos: 40 of 1,000 differ
    runs = seeds_of(claim, [with_right(900)] * 3, [with_right(940)] * 3, "table")
    finding = judge(claim, runs)
    difference = np.repeat([1.0, 0.0], [40, 960])
    expected = stats.ttest_1samp(difference, 0).confidence_interval()
    assert (finding.value, finding.low, finding.high) == pytest.approx((0.04, *expected))
    # other photos right with each seed: the same accuracies, but the seeds' spread is added
    spread = seeds_of(claim, [with_right(k) for k in (880, 900, 920)], [with_right(940)] * 3, "table")
    assert judge(claim, spread).high - judge(claim, spread).low > 2 * (finding.high - finding.low)


def test_two_seeds_are_reported_and_the_first_is_judged():
    claim = CLAIM["f"]
    alone = judge(claim, seeds_of(claim, [SLOW], [QUICK], "curve"))
    two = judge(claim, seeds_of(claim, [SLOW, QUICK], [QUICK, SLOW], "curve"))
    assert (two.value, two.low, two.high) == (alone.value, alone.low, alone.high)
    assert f"seed 0 (the seeds give {decimal(alone.value, 1)}, {decimal(-alone.value, 1)})" in two.note
    assert two.scope == alone.scope == THESE_RUNS


def test_the_same_seed_again_is_no_new_evidence():
    claim = CLAIM["f"]
    finding = judge(claim, both(claim, {"curve": SLOW}, {"curve": QUICK}) * 3)
    assert finding.scope == THESE_RUNS


def test_only_shared_seeds_are_paired():
    claim = CLAIM["f"]
    runs = [make_run(claim.sessions[0], seed=seed) for seed in (0, 1, 2, 3)]
    runs += [make_run(claim.sessions[1], seed=seed, curve=QUICK) for seed in (3, 4, 5, 6)]
    assert judge(claim, runs).scope == THESE_RUNS


# ---- ablations


def ablation(name="all", **settings):
    return replace(make_run("resnet18-bs32", epochs=20, **settings), name=name)


def without_weights(run):
    return replace(changed(run, weights={"source": "none"}), name="random-weights")


def test_augmentation_and_weights_are_judged_by_the_ablations():
    for full, expected in ((940, SUPPORTED), (860, CONTRADICTED), (902, UNDECIDED)):
        plain = ablation("no-augmentation", table=with_right(900), **AUGMENTATION)
        base = ablation(table=with_right(full), image_size=64)
        assert ablation_sessions([base, plain]).keys() == {FULL}  # another image size is another method
        plain = ablation("no-augmentation", table=with_right(900), image_size=64, **AUGMENTATION)
        random = without_weights(ablation(table=with_right(900), image_size=64))
        random = replace(random, info=random.info.model_copy(
            update={"settings": random.info.settings.model_copy(update={"weights": "none"})}))  # fmt: skip
        findings = judge_all([], ablations=[base, plain, random])
        ours = {finding.claim.key: finding for finding in findings if finding.evidence == OURS}
        assert [ours[key].verdict for key in "ij"] == [expected] * 2
        assert ours["i"].value == pytest.approx((full - 900) / PHOTOS)
        assert ours["i"].scope == f"{THESE_RUNS} with 20 epochs at 64 pixels"


def test_an_ablation_of_one_part_is_not_the_whole_augmentation():
    found = ablation_sessions([ablation(), ablation("no-flip", flip=0), ablation("no-crop", random_crop=False)])
    assert found.keys() == {FULL}
    assert ablation_sessions([]) == {}


# ---- which runs are compared


def test_sessions_are_found_by_their_settings():
    runs = [make_run("resnet34-bs32"), make_run("resnet18-bs64"), make_run("resnet18-bs64", seed=5)]
    runs = [Run(f"my {place}", run.folder, run.info, run.metrics, run.predictions) for place, run in enumerate(runs)]
    found = paper_sessions(runs)
    assert {name: {seed: run.name for seed, run in group.items()} for name, group in found.items()} == {
        "resnet34-bs32": {0: "my 0"},
        "resnet18-bs64": {0: "my 1", 5: "my 2"},
    }


def test_sessions_that_differ_in_more_are_not_mixed():
    slow = make_run("resnet18-bs32", learning_rate=0.0005)
    runs = [slow, make_run("resnet18-bs32"), make_run("resnet34-bs32"), make_run("resnet18-bs32", batch_size=16)]
    found = paper_sessions(runs)
    assert set(found) == {"resnet18-bs32", "resnet34-bs32"}
    assert found["resnet18-bs32"][0] is runs[1]
    assert set(paper_sessions([slow, make_run("resnet34-bs32")])) == {"resnet18-bs32"}


def test_the_family_with_most_of_the_sessions_is_taken():
    slow = [make_run("resnet18-bs32", learning_rate=0.0005, seed=seed) for seed in range(5)]
    assert set(paper_sessions([*slow, make_run("resnet18-bs32"), make_run("resnet18-bs64")])) == {
        "resnet18-bs32",
        "resnet18-bs64",
    }


def test_several_seeds_judge_before_one_but_not_the_time():
    one = [make_run(name) for name in SESSIONS]
    small = [make_run(name, seed=seed, image_size=128) for name in SESSIONS for seed in range(MIN_SEEDS)]
    for claim in CLAIMS:
        found = our_sessions(claim, one, small)
        sizes = {run.info.settings.image_size for runs in found.values() for run in runs.values()}
        assert sizes == (set() if claim.of_ablations else {224} if claim.key == "h" else {128})
    too_few = our_sessions(CLAIM["g"], one, small[:-1])
    assert [list(too_few[name]) for name in CLAIM["g"].sessions] == [[0], [0]]

    ours = findings_table(judge_all(one, small)).query("evidence == @OURS").set_index("key")
    size = "with 20 epochs at 128 pixels"
    assert scopes(ours.loc[["a", "e1", "h"]]) == f"{METHOD} {size} (a and e1) and {THESE_RUNS} (h)"


def undecided(key, runs, why):
    finding = judge(CLAIM[key], runs)
    assert finding.verdict == UNDECIDED
    assert math.isnan(finding.value)
    assert why in finding.note


def test_a_missing_session_is_named():
    for claim in CLAIMS:
        undecided(claim.key, [], "no ablation" if claim.of_ablations else "no run of resnet18-bs32")
    undecided("c", [make_run("resnet18-bs32"), make_run("resnet34-bs32")], "no run of resnet18-bs64")
    assert judge(CLAIM["c"], []).decides == "run of resnet18-bs32 and resnet18-bs64"


def test_another_number_of_repeats_is_no_other_method():
    runs = [make_run("resnet18-bs32"), make_run("resnet34-bs32", repeats=100)]
    assert set(paper_sessions(runs)) == {"resnet18-bs32", "resnet34-bs32"}


@pytest.mark.parametrize("key", list("abcdf"))
def test_few_epochs_decide_nothing(key):
    undecided(key, [make_run(name, curve=SLOW[:4]) for name in SESSIONS], "fewer than two epochs")


def test_a_single_epochs_time_decides_nothing():
    runs = [make_run(name, curve=SLOW[:1]) for name in SESSIONS]
    undecided("h", runs, "fewer than 5 epochs")


def test_times_of_two_machines_are_not_compared():
    claim = CLAIM["h"]
    undecided(claim.key, both(claim, {"device": "slow"}, {"device": "fast"}), "different devices")
    moved = both(claim, {}, {})
    earlier = EarlierEpochs(**dict(moved[0].info.computed), epochs=1)
    slow = earlier.model_copy(update={"device": earlier.device.model_copy(update={"name": "slow"})})
    moved[0] = changed(moved[0], earlier=(slow,))
    undecided(claim.key, moved, "different devices")


def test_other_validation_photos_are_not_compared():
    claim = CLAIM["g"]
    others = with_right(900).assign(photo=lambda table: "other " + table["photo"])
    undecided(claim.key, both(claim, {}, {"table": others}), "different photos")


def test_findings_as_a_table():
    runs = [make_run(name, evaluations=0.8 + 0.01 * ZIGZAG) for name in SESSIONS if name != "resnet34-bs32"]
    findings = judge_all(runs)
    table = findings_table(findings)
    assert table["key"].tolist() == [claim.key for claim in CLAIMS for _ in (PUBLISHED, OURS)]
    assert table["evidence"].tolist() == [PUBLISHED, OURS] * len(CLAIMS)
    assert table["verdict"].isin([SUPPORTED, CONTRADICTED, UNDECIDED]).all()
    ours = table[table["evidence"] == OURS].set_index("key")
    assert ours.loc["f", "result"] == "–"
    e1 = next(finding for finding in findings if finding.claim.key == "e1" and finding.evidence == OURS)
    assert ours.loc["e1", "result"] == interval(e1.value, e1.low, e1.high, signed=True)
    assert ours["claimed"].to_dict() == {
        "a": f"below {CONVERGED_BY}",
        "b": "below 1.41",
        "c": "below 0",
        "d": "below 0",
        "e1": "below 0",
        "e2": "above −.04",
        "f": "below 0",
        "g": "above 0",
        "h": "between 1.5 and 2.5",
        "i": "above 0",
        "j": "above 0",
    }
    wide = shown_claims(table).set_index("")
    assert wide.index.tolist() == list(CLAIM)
    assert wide.loc["h", ["Published", "Verdict", "Ours", "Our verdict"]].tolist() == ["–"] * 4
    assert wide.loc["e1", ["Verdict", "Our verdict"]].tolist() == [SUPPORTED, UNDECIDED]


def test_what_the_report_says_of_verdicts_is_corrected_and_silent_without_a_value():
    table = pd.DataFrame(
        {
            "key": ["a", "b", "c", "d"],
            "evidence": OURS,
            "value": [1.0, 1.0, 1.0, np.nan],
            "result": "1",
            "verdict": [SUPPORTED, SUPPORTED, CONTRADICTED, UNDECIDED],
            "holm_verdict": [SUPPORTED, SUPPORTED + NOT_AFTER_CORRECTION, CONTRADICTED, UNDECIDED],
        }
    )
    ours = table.set_index("key")
    assert (letters(ours, SUPPORTED), letters(ours, CONTRADICTED), letters(ours, UNDECIDED)) == ("a", "c", "b")
    assert number(ours, UNDECIDED) == 1
    assert told(ours, "b", "{result}: {verdict}") == "1: supported, not after correction"
    assert told(ours, "d", "{result}") == ""
    published = table.assign(evidence=PUBLISHED, holm_verdict="")
    assert agreed(pd.concat([published, table])) == "a"


def test_evaluate_says_of_each_session_its_number():
    claim = CLAIM["g"]
    runs = both(claim, {"table": with_right(900)}, {"table": with_right(920)})
    result = evaluate(claim.measure, [{0: run} for run in runs], claim.sessions)
    assert (result.seeds, result.photos) == (1, PHOTOS)
    assert result.note.startswith("resnet18-bs32 .900, resnet34-bs32 .920; only the first right on 0 of 1000 photos")
