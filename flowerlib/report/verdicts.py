"""The paper's claims, judged by the published tables and by our runs.

Rules of judgement, the same whatever the runs say:

1. A claim has one primary measure and a range of it that supports the claim (`claims`). Direction and size are two
   claims (e1, e2).
2. A verdict follows from the 95 % interval alone: supported if all of it lies in the range, contradicted if none of
   it does, else undecided. For a range with one end that is a one-sided test at 2.5 %: both say the same.
3. The p-value is two-sided, of the end of the range that is hardest to exclude; the interval leaves that end out
   where p < .05. Against 0, networks that are compared photo by photo have McNemar's exact p, which is the stricter.
4. Holm's correction is over the primary measures of our runs, as many as have a value. Where a verdict does not
   outlive it, "not after correction" is added. The published tables are not corrected: they are no runs of ours.
5. Secondary readings (`readings`: other metrics, other definitions) have no verdict.
6. Where nothing decides, the table says what would at this value: how many seeds, of a session each, or how many
   validation photos.
7. With `MIN_SEEDS` seeds or more an interval is over seeds and speaks of the method; with fewer it speaks of these
   runs. So sessions with several seeds judge a claim before those with one, whatever their size; not so h, since a
   time depends on the size. The published tables are of one run each.
8. Published accuracies e and g: each session on validation photos of its own, because its author's code draws the
   split anew in every run. Ours: photo by photo, on clean photos.
9. i and j are judged by the ablations. A verdict at another size than the paper's says so.
10. What sessions share (draws, photos, seeds) is paired.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
from scipy import stats

from flowerlib.experiment import Experiment
from flowerlib.report.claims import CLAIMS, Claim, our_sessions, paper_sessions
from flowerlib.report.measures import MIN_SEEDS, Evaluation, Measure, evaluate
from flowerlib.report.paper.published import published_runs
from flowerlib.report.phrases import MINUS, MISSING, interval, listing
from flowerlib.report.statistics import ALPHA, LEAST_P, TAILS, NoEvidence, holm
from flowerlib.runs import Run

SUPPORTED = "supported"
CONTRADICTED = "contradicted"
UNDECIDED = "undecided"
NOT_AFTER_CORRECTION = ", not after correction"

PUBLISHED = "published"
OURS = "ours"

METHOD = "the method"
THESE_RUNS = "these runs"

MOST_SEEDS, MOST_PHOTOS = 1_000, 1_000_000  # beyond these, nobody will run it


@dataclass(frozen=True)
class Finding:
    """A claim, judged by one evidence.

    Attributes:
        claim: the claim.
        evidence: `PUBLISHED` or `OURS`.
        measure: by which it was judged.
        value, low, high: the measure's value and 95 % interval; NaN where there is none.
        p: two-sided, of the end of the claimed range that is hardest to exclude; NaN where there is no value.
        verdict: `SUPPORTED`, `CONTRADICTED` or `UNDECIDED`.
        corrected: the verdict after Holm's correction; empty for the published tables.
        scope: `METHOD` or `THESE_RUNS`, with their size if it is not the paper's; empty without a value.
        decides: what would decide it, where it is undecided.
        note: each session's number and what the interval rests on, or why there is none.
    """

    claim: Claim
    evidence: str
    measure: Measure
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    verdict: str = UNDECIDED
    corrected: str = ""
    scope: str = ""
    decides: str = ""
    note: str = ""


# ---- judging


def verdict(low: float, high: float, claimed: tuple[float, float]) -> str:
    """Judge by an interval alone: all of it within the claimed range, all of it outside, or neither."""
    if claimed[0] < low and high < claimed[1]:
        return SUPPORTED
    if high < claimed[0] or claimed[1] < low:
        return CONTRADICTED
    return UNDECIDED


def judge(claim: Claim, sessions: Mapping[str, Mapping[int, Run]], evidence: str = OURS) -> Finding:
    """Judge one claim.

    Args:
        claim: the claim.
        sessions: the runs by name of the session and seed; see `our_sessions`.
        evidence: whose runs they are.
    """
    measure = claim.published if evidence == PUBLISHED and claim.published else claim.measure
    try:
        _refuse_missing(claim, sessions, evidence)
        result = evaluate(measure, [sessions[name] for name in claim.sessions], claim.sessions)
    except NoEvidence as reason:
        return Finding(claim, evidence, measure, decides=reason.decides, note=str(reason))
    estimate = result.estimate
    value, low, high = (measure.scaled(number) for number in (estimate.value, estimate.low, estimate.high))
    said = verdict(low, high, claim.claimed)
    ends = [measure.unscaled(end) for end in claim.claimed if math.isfinite(end)]
    return Finding(
        claim,
        evidence,
        measure,
        value,
        low,
        high,
        p=max(LEAST_P, *(estimate.p(end) for end in ends)),
        verdict=said,
        scope=_scope(result.seeds, next(iter(sessions[claim.sessions[0]].values()))),
        decides=what_decides(result, ends, measure.more) if said == UNDECIDED else "",
        note=result.note,
    )


def _refuse_missing(claim: Claim, sessions: Mapping[str, Mapping[int, Run]], evidence: str) -> None:
    if claim.of_ablations and evidence == PUBLISHED:
        raise NoEvidence("no such session published", "a published ablation")
    missing = [name for name in claim.sessions if name not in sessions]
    if missing:
        kind = "ablation" if claim.of_ablations else "run of"
        said = f"{kind} {' and '.join(missing)}"
        raise NoEvidence(f"no {said}", said)


def _scope(seeds: int, run: Run) -> str:
    """Of what a verdict speaks, and at which size."""
    scope = METHOD if seeds >= MIN_SEEDS else THESE_RUNS
    ours, papers = ((each.epochs, each.image_size) for each in (run.info.settings, Experiment()))
    return scope if ours == papers else "{} with {} epochs at {} pixels".format(scope, *ours)


def judge_all(runs: Sequence[Run], seeds: Sequence[Run] = (), ablations: Sequence[Run] = ()) -> list[Finding]:
    """Judge each of `CLAIMS` by the published tables, then by our runs, with Holm's correction over ours.

    Args:
        runs, seeds, ablations: see `our_sessions`.
    """
    published = paper_sessions(published_runs())
    of_ours = corrected([judge(claim, our_sessions(claim, runs, seeds, ablations)) for claim in CLAIMS])
    return [
        finding
        for claim, own in zip(CLAIMS, of_ours, strict=True)
        for finding in (judge(claim, published, PUBLISHED), own)
    ]


def corrected(findings: Sequence[Finding]) -> list[Finding]:
    """The findings of one family, with what Holm's correction leaves of their verdicts."""
    adjusted = holm([finding.p for finding in findings])
    return [
        replace(
            finding,
            corrected=finding.verdict + (NOT_AFTER_CORRECTION if finding.verdict != UNDECIDED and p >= ALPHA else ""),
        )
        for finding, p in zip(findings, adjusted, strict=True)
    ]


# ---- what would decide


def what_decides(result: Evaluation, ends: Sequence[float], more: str) -> str:
    """How many seeds or photos would decide, if the value stays.

    An interval over photos narrows with the square root of their number. A single run's interval, which is of its
    curve, is taken as that of one seed.

    Args:
        result: the measure's value and interval.
        ends: of the claimed range, on the measure's scale.
        more: what narrows a single seed's interval, ``seeds`` or ``validation photos``.
    """
    estimate = result.estimate
    reaches = [
        (
            abs(estimate.value - end),
            estimate.value - estimate.low if end < estimate.value else estimate.high - estimate.value,
        )
        for end in ends
    ]
    distance, half = min(reaches)
    if not distance > 0:
        return f"no number of {more} at this value"
    if result.seeds < MIN_SEEDS and more != "seeds":
        return _number(result.photos * (half / distance) ** 2, MOST_PHOTOS, more)
    count = result.seeds if result.seeds >= MIN_SEEDS else 1
    quantile = stats.t.ppf(TAILS[1], count - 1) if count > 1 else stats.norm.ppf(TAILS[1])
    return _number(seeds_needed(half * math.sqrt(count) / quantile, distance), MOST_SEEDS, "seeds")


def seeds_needed(deviation: float, distance: float) -> float:
    """The least number of seeds, three or more, whose t interval is narrower than ``distance`` to either side.

    Args:
        deviation: standard deviation between seeds.
        distance: what is to be told apart.
    """
    for seeds in range(MIN_SEEDS, MOST_SEEDS + 1):
        if stats.t.ppf(TAILS[1], seeds - 1) * deviation / math.sqrt(seeds) < distance:
            return seeds
    return math.inf


def _number(count: float, most: int, of: str) -> str:
    """A count in two digits, rounded up."""
    if count > most:
        return f"more than {most:,} {of}"
    step = 10 ** max(math.floor(math.log10(count)) - 1, 0)
    return f"about {math.ceil(count / step) * step:,} {of}"


# ---- as tables


def findings_table(findings: Sequence[Finding]) -> pd.DataFrame:
    """Set findings as a table.

    Returns:
        A row a finding: ``key``, ``claim``, ``quotation``, ``section``, ``evidence``, ``measure``, ``label`` (of an
        axis), ``protocol``, ``claimed`` (the range, as text) with ``claimed_low`` and ``claimed_high``, ``value``,
        ``low``, ``high``, ``result`` (``value [low, high]`` as text), ``p``, ``verdict``, ``holm_verdict`` (empty
        for the published tables), ``scope``, ``would_decide``, ``note``.
    """
    return pd.DataFrame(
        {
            "key": finding.claim.key,
            "claim": finding.claim.paper.claim,
            "quotation": finding.claim.paper.quotation,
            "section": finding.claim.paper.section,
            "evidence": finding.evidence,
            "measure": finding.measure.definition,
            "label": finding.measure.label,
            "protocol": finding.measure.protocol,
            "claimed": range_text(finding.claim.claimed),
            "claimed_low": finding.claim.claimed[0],
            "claimed_high": finding.claim.claimed[1],
            "value": finding.value,
            "low": finding.low,
            "high": finding.high,
            "result": result_text(finding),
            "p": finding.p,
            "verdict": finding.verdict,
            "holm_verdict": finding.corrected,
            "scope": finding.scope,
            "would_decide": finding.decides,
            "note": finding.note,
        }
        for finding in findings
    )


def result_text(finding: Finding) -> str:
    """``value [low, high]``; with a sign where it is a difference."""
    signed = len(finding.claim.sessions) > 1 and not finding.measure.logarithm
    return interval(finding.value, finding.low, finding.high, finding.measure.places, signed)


def range_text(claimed: tuple[float, float]) -> str:
    """``below 10``, ``above 0``, ``between 1.5 and 2.5``."""
    low, high = (re.sub(r"^(-?)0\.", r"\1.", f"{round(end, 2):g}").replace("-", MINUS) for end in claimed)
    if math.isinf(claimed[0]):
        return f"below {high}"
    return f"above {low}" if math.isinf(claimed[1]) else f"between {low} and {high}"


# ---- for the report


def number(table: pd.DataFrame, verdict: str) -> int:
    """How many claims have a verdict; ``table`` as in `findings_table`, of one evidence, indexed by ``key``."""
    return len(_with(table, verdict))


def letters(table: pd.DataFrame, verdict: str) -> str:
    """The letters of the claims with a verdict, ``a, d and e1``; ``none`` where there are none."""
    return listing(_with(table, verdict)) if number(table, verdict) else "none"


def final_verdicts(table: pd.DataFrame) -> pd.Series:
    """The verdicts that count: of our runs after correction, which leaves what it takes back undecided."""
    final = table["holm_verdict"].where(table["holm_verdict"] != "", table["verdict"])
    return final.mask(final.str.endswith(NOT_AFTER_CORRECTION), UNDECIDED)


def _with(table: pd.DataFrame, verdict: str) -> list[str]:
    """Claims that were judged so."""
    return list(table.index[(final_verdicts(table) == verdict) & table["value"].notna()])


def scopes(table: pd.DataFrame) -> str:
    """Of what the verdicts speak: ``the method with 20 epochs at 128 pixels (a and b) and these runs (h)``."""
    known = table[table["value"].notna()].groupby("scope", sort=False)
    return listing([f"{scope} ({listing(list(rows.index))})" for scope, rows in known])


def told(table: pd.DataFrame, key: str, sentence: str) -> str:
    """``sentence`` with the ``{result}`` and ``{verdict}`` of a claim; nothing where the claim has no value."""
    row = table.loc[key]
    verdict = row["holm_verdict"] or row["verdict"]
    return "" if math.isnan(row["value"]) else sentence.format(result=row["result"], verdict=verdict)


def agreed(table: pd.DataFrame) -> str:
    """The letters of the claims that both evidences support, ours after correction."""
    published, ours = (table[table["evidence"] == each].set_index("key") for each in (PUBLISHED, OURS))
    both = [key for key in _with(ours, SUPPORTED) if key in _with(published, SUPPORTED)]
    return listing(both) if both else "none"


def shown_claims(table: pd.DataFrame) -> pd.DataFrame:
    """A row a claim: both values with their intervals, and both verdicts."""
    published, ours = (table[table["evidence"] == each].set_index("key") for each in (PUBLISHED, OURS))
    return pd.DataFrame(
        {
            "": ours.index,
            "Claim": ours["claim"],
            "Published": published["result"],
            "Verdict": published["verdict"].where(published["value"].notna(), MISSING),
            "Ours": ours["result"],
            "Our verdict": ours["holm_verdict"].where(ours["value"].notna(), MISSING),
        }
    ).reset_index(drop=True)


def shown_measures(table: pd.DataFrame) -> pd.DataFrame:
    """A row a claim: its words, its primary measure and the range that supports it."""
    claims = table[table["evidence"] == OURS]
    return pd.DataFrame(
        {
            "": claims["key"],
            "In the course report's words": "“" + claims["quotation"] + "”",
            "Primary measure": claims["measure"] + ", " + claims["protocol"],
            "Range": claims["claimed"],
        }
    )


def shown_notes(table: pd.DataFrame) -> pd.DataFrame:
    """A row a value: what it rests on, and what would decide an undecided claim."""
    known = table[table["value"].notna()]
    return pd.DataFrame(
        {
            "": known["key"],
            "Evidence": known["evidence"],
            "Rests on": known["note"],
            "Would decide": known["would_decide"].where(known["would_decide"] != "", MISSING),
        }
    )
