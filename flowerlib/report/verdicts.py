"""The paper's claims (section 4), judged by the published tables and by our runs: verdicts follow from intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from flowerlib.experiment import Experiment
from flowerlib.report.measures import (
    CONVERGED_BY,
    CONVERGENCE,
    FINAL_ACCURACY,
    FLUCTUATION,
    LATE_ACCURACY,
    ROUGHNESS,
    TRAINING_TIME,
    Measure,
    evaluate,
)
from flowerlib.report.paper.published import FIRST, SESSIONS, VALIDATION_PHOTOS, published_runs, published_tables
from flowerlib.report.statistics import CONVERGED_WITHIN, NoEvidence, format_interval, scatter
from flowerlib.runs import Run

# Four points: half as many mistakes again as at the paper's .92 are no slight decrease.
SLIGHT = 0.04

# "Approximately double": nearer to two than to one or to three times.
ABOUT_DOUBLE = (1.5, 2.5)

SUPPORTED = "supported"
NOT_SUPPORTED = "not supported"
UNDECIDED = "not decided by this evidence"

PUBLISHED = "published"
OURS = "ours"


@dataclass(frozen=True)
class Claim:
    """A claim of the paper's section 4.

    Attributes:
        key: its short name.
        statement: what the paper says, in its words where they are short.
        sessions: the session, or the two whose difference (second minus first) is measured; names of
            `flowerlib.report.paper.published.SESSIONS`.
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


CLAIMS = (
    Claim(
        "converged",
        "The model appears to converge after the 10th epoch [that is, by then].",
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


def paper_sessions(runs: Sequence[Run]) -> dict[str, dict[int, Run]]:
    """Find the paper's sessions among ``runs`` by their settings: session name → seed → run.

    Sessions that are compared must differ in nothing but model, batch size and seed. Where runs fall into
    several such families, the one with most of the paper's sessions is taken, then with most runs, then the
    first. A seed that is there twice counts once: the same run again is no new evidence.
    """
    families: dict[Experiment, dict[str, dict[int, Run]]] = {}
    for run in runs:
        settings = run.info.settings
        for name, own in SESSIONS.items():
            if all(getattr(settings, key) == value for key, value in own.items()):
                family = families.setdefault(settings.model_copy(update={**SESSIONS[FIRST], "seed": 0}), {})
                family.setdefault(name, {}).setdefault(settings.seed, run)
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
            "result": format_interval(finding.value, finding.low, finding.high, finding.measure.form),
            "verdict": finding.verdict,
            "note": finding.note,
        }
        for finding in findings
    )


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
        ``augmented_minus_published``.
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
    return result


def noise(evaluations: Sequence[float], photos: int = VALIDATION_PHOTOS) -> pd.DataFrame:
    """The published late fluctuation beside that of one network of ours, evaluated again and again.

    From epoch 14 on the paper's learning rate is 1e-5 and its networks hardly change. Where its accuracies
    scatter no more than those of one fixed network under new random augmentations, the scatter is its
    validation's.

    Args:
        evaluations: augmented validation accuracies of one fixed network, each of another random augmentation.
        photos: on how many photos each.

    Returns:
        A row a published session, and a last row ``repeated evaluation``, with the columns of
        `flowerlib.report.statistics.scatter`.
    """
    late = 2 * Experiment().lr_step
    rows = {
        name: scatter(table.loc[table["epoch"] >= late, "val_aug_acc"], VALIDATION_PHOTOS)
        for name, table in published_tables().items()
    } | {"repeated evaluation": scatter(evaluations, photos)}
    return pd.DataFrame(rows).T.astype({"evaluations": int})
