"""The paper's claims (section 4), each with a measure, judged by the published tables and by our runs.

A verdict follows from an interval alone. Curves and late accuracies are judged under augmented validation, the
paper's; two networks of ours, photo by photo, on the clean one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression
from statsmodels.stats.proportion import confint_proportions_2indep

from flowerlib.analysis import (
    ALPHA,
    CONVERGED_WITHIN,
    RESAMPLES,
    SEED,
    TAILS,
    Interval,
    NoEvidence,
    accuracy,
    compare_predictions,
    convergence_epoch,
    holding,
    mean_step,
    mean_variance,
    side_by_side,
    t_interval,
)
from flowerlib.metrics import Run
from flowerlib.published import SESSIONS, published_runs, published_tables

# Fewer values than three give no interval worth the name: at two, the t quantile is 12.7.
MIN_SEEDS = 3

# The paper: "after the 10th epoch".
CONVERGED_BY = 10

# Four points: half as many mistakes again as at the paper's .92 are no slight decrease.
SLIGHT = 0.04

# "Approximately double": nearer to two than to one or to three times.
ABOUT_DOUBLE = (1.5, 2.5)

# Steps that share an epoch are alike in size: of white noise, whose steps correlate by -1/2, the sizes correlate
# by .224, and the variance of their mean is 1 + 2 · .224 times that of independent ones. Of two simulated curves of
# 13 epochs the intervals of the difference then hold the truth in 94 to 96 % of cases; without it in 90 %, and
# block bootstraps in 84 to 87 %.
STEP_VARIANCE = 1.45

SUPPORTED = "supported"
NOT_SUPPORTED = "not supported"
UNDECIDED = "not decided by this evidence"

AUGMENTED = "augmented validation"
CLEAN = "clean validation"
CLOCK = "training time"

PUBLISHED = "published"
OURS = "ours"


# ---- what a claim, a measure and a finding are


@dataclass(frozen=True)
class Measure:
    """A number of one network, and how sure its value is, or its difference between two networks.

    Attributes:
        definition: in words.
        protocol: which validation it is taken on, or the clock.
        of: the number of one run.
        alone: the interval of one run's number, or of the second's minus the first's, without other seeds, and
            what else is to be said of it.
        form: format of the value.
        scale: applied to number and interval alike, for those taken as logarithms.
        check: refuses runs that can't be compared; takes rows of runs.
        besides: variances and degrees of freedom that add to that between seeds; takes rows of runs.
    """

    definition: str
    protocol: str
    of: Callable[[Run], float]
    alone: Callable[..., tuple[float, float, str]]
    form: str = ".4f"
    scale: Callable[[float], float] = float
    check: Callable[[Sequence[Sequence[Run]]], None] = lambda rows: None
    besides: Callable[[Sequence[Sequence[Run]]], list[tuple[float, float]]] = lambda rows: []


@dataclass(frozen=True)
class Claim:
    """A claim of the paper's section 4.

    Attributes:
        key: its short name.
        statement: what the paper says, in its words where they are short.
        sessions: the session, or the two whose difference (second minus first) is measured; names of
            `flowerlib.published.SESSIONS`.
        measure: what is measured.
        claimed: the range in which the claim wants the value.
        published: the measure for the published tables, where they can't give the other.
    """

    key: str
    statement: str
    sessions: tuple[str, ...]
    measure: Measure
    claimed: tuple[float, float]
    published: Measure | None = None


@dataclass(frozen=True)
class Finding:
    """A claim, judged.

    Attributes:
        claim: the claim.
        evidence: ``published`` or ``ours``.
        measure: by which it was judged.
        value, low, high: the measure's value and interval; NaN where there is none.
        verdict: `SUPPORTED`, `NOT_SUPPORTED` or `UNDECIDED`.
        note: each session's value, what the interval covers, or why there is none.
    """

    claim: Claim
    evidence: str
    measure: Measure
    value: float
    low: float
    high: float
    verdict: str
    note: str


# ---- how the measures are taken


def _validation(run: Run, start: int) -> np.ndarray:
    """Augmented validation accuracies from an epoch on, which must be two at least."""
    values = run.metrics.loc[run.metrics["epoch"] >= start, "val_aug_acc"].to_numpy(dtype=float)
    if len(values) < 2:
        raise NoEvidence(f"{run.name} has fewer than two epochs from epoch {start} on.")
    return values


def _converged(run: Run) -> np.ndarray:
    return _validation(run, CONVERGED_BY)


def _slowed(run: Run) -> np.ndarray:
    return _validation(run, run.info["settings"]["lr_step"])


def _late(run: Run) -> np.ndarray:
    return _validation(run, 2 * run.info["settings"]["lr_step"])


def _photos(run: Run) -> int:
    return run.info["split"]["validation"]


def _convergence(run: Run) -> float:
    _late(run)  # there must be such epochs
    return convergence_epoch(run.metrics["val_aug_acc"], 2 * run.info["settings"]["lr_step"])


def _convergence_alone(*runs: Run) -> tuple[float, float, str]:
    """Percentiles of curves simulated from the fitted ones.

    The noise is that of drawing each epoch's photos anew. The real photos stay the same and only their
    augmentation changes, which scatters less: the interval is rather too wide. Simulated with the full noise, it
    holds the truth in 93 to 98 % of cases for one curve, in 99 % for a difference.
    """
    draws = [_simulated_convergence(run, np.random.default_rng([SEED, place])) for place, run in enumerate(runs)]
    low, high = np.quantile(_effect(draws), TAILS)
    return low, high, "interval: curves simulated with the binomial noise of the validation photos"


def _simulated_convergence(run: Run, random: np.random.Generator) -> np.ndarray:
    rising = isotonic_regression(run.metrics["val_aug_acc"]).x
    curves = random.binomial(_photos(run), rising, (RESAMPLES, len(rising))) / _photos(run)
    return np.array([convergence_epoch(curve, 2 * run.info["settings"]["lr_step"]) for curve in curves])


def _step_alone(window: Callable[[Run], np.ndarray], *runs: Run) -> tuple[float, float, str]:
    """The t interval of mean steps, or of the difference of two (Welch)."""
    steps = [np.abs(np.diff(window(run))) for run in runs]
    parts = [mean_variance(values, STEP_VARIANCE) for values in steps]
    value = _effect([values.mean() for values in steps])
    return *t_interval(value, parts), "t interval over the steps"


def _late_accuracy_alone(first: Run, second: Run) -> tuple[float, float, str]:
    """Newcombe's interval of two independent shares, each of one evaluation's photos.

    The late epochs share their photos: their mean scatters less than one evaluation, and the interval is rather
    too wide. That both sessions had the same photos is not known, so nothing is paired.
    """
    late = [_late(run) for run in (first, second)]
    photos = [_photos(run) for run in (first, second)]
    correct = [values.mean() * number for values, number in zip(late, photos, strict=True)]
    low, high = confint_proportions_2indep(correct[1], photos[1], correct[0], photos[0], "newcomb", alpha=ALPHA)
    scatter = " and ".join(f"{values.std(ddof=1):.4f}" for values in late)
    return low, high, f"sd of the late epochs {scatter}; interval: Newcombe's, of unpaired photos"


def _final_accuracy(run: Run) -> float:
    if run.predictions.empty:
        raise NoEvidence(f"{run.name} has no predictions.")
    return accuracy(run.predictions).value


def _final_accuracy_alone(first: Run, second: Run) -> tuple[float, float, str]:
    result = compare_predictions(first.predictions, second.predictions)
    return (
        result.difference.low,
        result.difference.high,
        f"only the first has {result.only_first} of {result.photos} photos right, only the second "
        f"{result.only_second}; McNemar's exact p {result.p_value:.3g}; interval: bootstrap over photos",
    )


def _same_photos(rows: Sequence[Sequence[Run]]) -> None:
    if len({frozenset(run.predictions["photo"]) for row in rows for run in row}) > 1:
        raise NoEvidence("The sessions were validated on different photos.")


def _photo_variance(rows: Sequence[Sequence[Run]]) -> list[tuple[float, float]]:
    """The variance that other validation photos would add to that of other seeds.

    It holds a part of the seeds' own variance: the interval is rather too wide.
    """
    tables = [side_by_side(first.predictions, second.predictions).astype(float) for first, second in rows]
    mean = sum(table["second"] - table["first"] for table in tables) / len(tables)
    return [mean_variance(mean.to_numpy())]


def _log_seconds(run: Run) -> float:
    if "train_seconds" not in run.metrics:
        raise NoEvidence(f"{run.name} records no training times.")
    return float(np.log(run.metrics["train_seconds"]).mean())


def _log_seconds_alone(first: Run, second: Run) -> tuple[float, float, str]:
    logs = [np.log(run.metrics["train_seconds"].to_numpy()) for run in (first, second)]
    interval = t_interval(logs[1].mean() - logs[0].mean(), [mean_variance(values) for values in logs])
    return *interval, "t interval over the epochs"


def _same_machine(rows: Sequence[Sequence[Run]]) -> None:
    machines = {
        json.dumps([run.info["device"], run.info["precision"]], sort_keys=True) for row in rows for run in row
    }
    if len(machines) > 1:
        raise NoEvidence("The sessions ran on different devices or in different precision: times can't be compared.")


# ---- the measures, and the claims

CONVERGENCE = Measure(
    definition=f"Epochs until the curve, made to rise only, is within {CONVERGED_WITHIN:.0%} of its mean after the "
    "second drop of the learning rate",
    protocol=AUGMENTED,
    of=_convergence,
    alone=_convergence_alone,
    form=".1f",
)
FLUCTUATION = Measure(
    definition=f"Mean absolute change of accuracy from one epoch to the next, from epoch {CONVERGED_BY} on",
    protocol=AUGMENTED,
    of=lambda run: mean_step(_converged(run)),
    alone=partial(_step_alone, _converged),
)
ROUGHNESS = Measure(
    definition="Mean absolute change of accuracy from one epoch to the next, after the first drop of the learning "
    "rate",
    protocol=AUGMENTED,
    of=lambda run: mean_step(_slowed(run)),
    alone=partial(_step_alone, _slowed),
)
LATE_ACCURACY = Measure(
    definition="Mean accuracy after the second drop of the learning rate",
    protocol=AUGMENTED,
    of=lambda run: float(_late(run).mean()),
    alone=_late_accuracy_alone,
)
FINAL_ACCURACY = Measure(
    definition="Accuracy after the last epoch, compared photo by photo",
    protocol=CLEAN,
    of=_final_accuracy,
    alone=_final_accuracy_alone,
    check=_same_photos,
    besides=_photo_variance,
)
TRAINING_TIME = Measure(
    definition="Geometric mean of an epoch's training seconds, as a ratio",
    protocol=CLOCK,
    of=_log_seconds,
    alone=_log_seconds_alone,
    form=".2f",
    scale=math.exp,
    check=_same_machine,
)

CLAIMS = (
    Claim(
        "converged",
        "The model appears to converge after the 10th epoch.",
        ("resnet18-bs32",),
        CONVERGENCE,
        (-math.inf, CONVERGED_BY),
    ),
    Claim(
        "steady",
        "After the 10th epoch the validation exhibits small-scale fluctuations.",
        ("resnet18-bs32",),
        FLUCTUATION,
        (-math.inf, CONVERGED_WITHIN),
    ),
    Claim(
        "batch64-faster",
        "With a batch size of 64 the model converges faster than with 32.",
        ("resnet18-bs32", "resnet18-bs64"),
        CONVERGENCE,
        (-math.inf, 0),
    ),
    Claim(
        "batch64-smoother",
        "With a batch size of 64 the trends are smoother than with 32.",
        ("resnet18-bs32", "resnet18-bs64"),
        ROUGHNESS,
        (-math.inf, 0),
    ),
    Claim(
        "batch64-less-accurate",
        "A batch size of 64 results in a slight decrease in accuracy.",
        ("resnet18-bs32", "resnet18-bs64"),
        FINAL_ACCURACY,
        (-SLIGHT, 0),
        published=LATE_ACCURACY,
    ),
    Claim(
        "resnet34-faster",
        "ResNet-34 converges faster than ResNet-18.",
        ("resnet18-bs32", "resnet34-bs32"),
        CONVERGENCE,
        (-math.inf, 0),
    ),
    Claim(
        "resnet34-more-accurate",
        "ResNet-34 achieves higher accuracy than ResNet-18.",
        ("resnet18-bs32", "resnet34-bs32"),
        FINAL_ACCURACY,
        (0, math.inf),
        published=LATE_ACCURACY,
    ),
    Claim(
        "resnet34-twice-as-long",
        "The training of ResNet-34 takes approximately double the time of ResNet-18.",
        ("resnet18-bs32", "resnet34-bs32"),
        TRAINING_TIME,
        ABOUT_DOUBLE,
    ),
)


# ---- judging


def verdict(low: float, high: float, claimed: tuple[float, float]) -> str:
    """Judge by an interval alone: all of it within the claimed range, all of it outside, or neither."""
    if claimed[0] < low and high < claimed[1]:
        return SUPPORTED
    if high < claimed[0] or claimed[1] < low:
        return NOT_SUPPORTED
    return UNDECIDED


def paper_sessions(runs: Sequence[Run]) -> dict[str, dict[int | None, Run]]:
    """Find the paper's sessions among ``runs`` by their settings: session name → seed → run.

    Sessions that are compared must differ in nothing but model, batch size and seed. Where runs fall into
    several such families, the one with most of the paper's sessions is taken, then with most runs, then the
    first. A seed that is there twice counts once: the same run again is no new evidence.
    """
    families: dict[str, dict[str, dict[int | None, Run]]] = {}
    for run in runs:
        settings = run.info["settings"]
        for name, own in SESSIONS.items():
            if all(settings[key] == value for key, value in own.items()):
                others = {key: value for key, value in settings.items() if key not in {*own, "seed"}}
                family = families.setdefault(json.dumps(others, sort_keys=True), {})
                family.setdefault(name, {}).setdefault(settings["seed"], run)
    return max(families.values(), key=lambda family: (len(family), sum(map(len, family.values()))), default={})


def judge(claim: Claim, runs: Sequence[Run], evidence: str = OURS) -> Finding:
    """Judge one claim by ``runs``, or by the published tables as runs (``evidence="published"``)."""
    measure = claim.published if evidence == PUBLISHED and claim.published else claim.measure
    sessions = paper_sessions(runs)
    try:
        missing = [name for name in claim.sessions if name not in sessions]
        if missing:
            raise NoEvidence(f"There is no run of {' and '.join(missing)}.")
        interval, note = evaluate(measure, [sessions[name] for name in claim.sessions], claim.sessions)
    except NoEvidence as reason:
        return Finding(claim, evidence, measure, math.nan, math.nan, math.nan, UNDECIDED, str(reason))
    return Finding(claim, evidence, measure, *interval, verdict(interval.low, interval.high, claim.claimed), note)


def judge_all(runs: Sequence[Run]) -> list[Finding]:
    """Judge each of `CLAIMS` by the published tables, then by ``runs``."""
    return [
        judge(claim, evidence_runs, evidence)
        for claim in CLAIMS
        for evidence, evidence_runs in ((PUBLISHED, published_runs()), (OURS, runs))
    ]


def findings_table(findings: Sequence[Finding]) -> pd.DataFrame:
    """Set findings as a table.

    Returns:
        A row a finding: ``key``, ``claim``, ``evidence``, ``protocol``, ``measure``, ``claimed`` (the range, as
        text), ``value``, ``low``, ``high``, ``result`` (``value [low, high]`` as text), ``verdict``, ``note``.
    """
    return pd.DataFrame(
        {
            "key": finding.claim.key,
            "claim": finding.claim.statement,
            "evidence": finding.evidence,
            "protocol": finding.measure.protocol,
            "measure": finding.measure.definition,
            "claimed": _range_text(finding.claim.claimed),
            "value": finding.value,
            "low": finding.low,
            "high": finding.high,
            "result": _result_text(finding),
            "verdict": finding.verdict,
            "note": finding.note,
        }
        for finding in findings
    )


def evaluate(
    measure: Measure, groups: Sequence[Mapping[int | None, Run]], names: Sequence[str]
) -> tuple[Interval, str]:
    """A measure of one session or the difference of two, over the seeds that they share if these are enough.

    Args:
        measure: what is measured.
        groups: one session or two, each its runs by seed.
        names: of the sessions, for the note.

    Returns:
        The value with its interval, and what it rests on.

    Raises:
        NoEvidence: the tables lack what the measure needs, or can't be compared.
    """
    rows = _rows(groups)
    numbers = np.array([[measure.of(run) for run in row] for row in rows])
    measure.check(rows)
    effects = _effect(list(numbers.T))
    if len(rows) >= MIN_SEEDS:
        value = effects.mean()
        low, high = t_interval(value, [mean_variance(effects), *measure.besides(rows)])
        said = [f"t interval over {len(rows)} seeds" + (" and the photos" if measure.besides(rows) else "")]
    else:
        numbers, value = numbers[:1], effects[0]
        low, high, detail = measure.alone(*rows[0])
        said = [detail, _scope(rows, [measure.scale(effect) for effect in effects], measure.form)]
    means = [
        f"{name} {measure.scale(mean):{measure.form}}" for name, mean in zip(names, numbers.mean(0), strict=True)
    ]
    interval = holding(*(float(measure.scale(number)) for number in (value, low, high)))
    return interval, "; ".join([", ".join(means), *said]) + "."


def _rows(groups: Sequence[Mapping[int | None, Run]]) -> list[tuple[Run, ...]]:
    """The sessions' runs side by side: a row a shared seed, or one row of their first runs if they share none."""
    shared = [seed for seed in groups[0] if all(seed in group for group in groups)]
    return [tuple(group[seed] for group in groups) for seed in shared] or [
        tuple(next(iter(group.values())) for group in groups)
    ]


def _effect(numbers: Sequence[np.ndarray | float]) -> np.ndarray | float:
    """One session's numbers, or the second's minus the first's."""
    return numbers[0] if len(numbers) == 1 else numbers[1] - numbers[0]


def _scope(rows: Sequence[Sequence[Run]], effects: Sequence[float], form: str) -> str:
    """Say of what a result without enough seeds speaks."""
    scope = "it speaks of this run" if len(rows[0]) == 1 else "it speaks of these two runs"
    if len(rows) > 1:
        values = ", ".join(f"{effect:{form}}" for effect in effects)
        scope += f", of seed {rows[0][0].info['settings']['seed']} (the seeds give {values})"
    return f"{scope}, not of the method"


def _result_text(finding: Finding) -> str:
    if math.isnan(finding.value):
        return "–"
    value, low, high = (f"{number:{finding.measure.form}}" for number in (finding.value, finding.low, finding.high))
    return f"{value} [{low}, {high}]"


def _range_text(claimed: tuple[float, float]) -> str:
    low, high = claimed
    if math.isinf(low):
        return f"below {high:g}"
    return f"above {low:g}" if math.isinf(high) else f"between {low:g} and {high:g}"


# ---- beside the published tables

QUANTITIES: Mapping[str, Callable[[pd.Series], float]] = {
    "last": lambda values: values.iloc[-1],
    "best": lambda values: values.max(),
    "last five": lambda values: values.rolling(5).mean().iloc[-1],  # NaN of fewer epochs
}


def beside_published(runs: Sequence[Run]) -> pd.DataFrame:
    """Validation accuracies of the paper's sessions: published, and ours under both protocols.

    Only ``augmented`` is comparable with ``published``. The best epoch is chosen on the photos that measure it,
    and is too high everywhere.

    Returns:
        A row a session and quantity (columns ``session``, ``quantity``): ``published``; ``augmented`` and
        ``clean`` (ours, mean over seeds) with ``augmented_sd`` and ``clean_sd`` (NaN of one seed); ``seeds``;
        ``augmented_minus_published``; ``clean_minus_augmented``.
    """
    sessions = paper_sessions(runs)
    rows = []
    for name, table in published_tables().items():
        networks = list(sessions.get(name, {}).values())
        for quantity, take in QUANTITIES.items():
            row = {"session": name, "quantity": quantity, "published": take(table["val_aug_acc"])}
            for protocol, column in {"augmented": "val_aug_acc", "clean": "val_acc"}.items():
                values = pd.Series([take(run.metrics[column]) for run in networks], dtype=float)
                row |= {protocol: values.mean(), f"{protocol}_sd": values.std()}
            rows.append(row | {"seeds": len(networks)})
    result = pd.DataFrame(rows)
    result["augmented_minus_published"] = result["augmented"] - result["published"]
    result["clean_minus_augmented"] = result["clean"] - result["augmented"]
    return result
