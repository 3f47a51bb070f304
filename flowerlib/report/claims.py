"""What each of the paper's claims asks of the evidence: sessions, one primary measure, the range that supports it.

The measures are the same whatever the runs say. What else can be read from the tables is in `readings`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flowerlib.report.measures import (
    CONVERGED_BY,
    CONVERGENCE,
    DRAWN_BY,
    FINAL_ACCURACY,
    FLUCTUATION,
    LATE_ACCURACY,
    MIN_SEEDS,
    ROUGHNESS,
    TRAINING_TIME,
    Measure,
)
from flowerlib.report.paper.published import FIRST, SESSIONS, PaperClaim, paper_claims
from flowerlib.runs import NOT_INPUTS, Run

# Small: of the variance of a step, at most half is the network's own, and the rest that of its validation under
# random changes. A fixed network has 1.
SMALL_STEP = math.sqrt(2)

# Four points: a 50 % increase of the paper's error rate of .08 is no slight decrease.
SLIGHT = 0.04

# "Approximately double": nearer to two than to one or to three times.
ABOUT_DOUBLE = (1.5, 2.5)

# Settings that make the augmentation, and what they are without it.
AUGMENTATION = {name: 0 for name in DRAWN_BY if name not in ("seed", "epochs", "image_size", "random_crop")}
AUGMENTATION |= {"random_crop": False}

ABLATIONS: Mapping[str, Callable[[Run], bool]] = {
    "without augmentation": lambda run: all(
        getattr(run.info.settings, name) == off for name, off in AUGMENTATION.items()
    ),
    "random weights": lambda run: run.info.weights.source == "none",
}


@dataclass(frozen=True)
class Claim:
    """A claim, and by what it is judged.

    Attributes:
        paper: what the paper says.
        sessions: the session, or the two whose difference (second minus first) is measured: names of `SESSIONS`, or
            for an ablation one of `ABLATIONS` and ``full method``.
        measure: the primary measure.
        claimed: the range of the measure that supports the claim.
        published: the primary measure of the published tables, where they can't give the other.
        by_seeds: whether the sessions with several seeds judge it, where they were run. They may be smaller than the
            others; a time depends on the size.
    """

    paper: PaperClaim
    sessions: tuple[str, ...]
    measure: Measure
    claimed: tuple[float, float]
    published: Measure | None = None
    by_seeds: bool = True

    @property
    def key(self) -> str:
        """The claim's letter."""
        return self.paper.key

    @property
    def of_ablations(self) -> bool:
        """Whether the ablations judge it, and not the paper's sessions."""
        return self.sessions[0] in ABLATIONS


FULL = "full method"
BATCH = (FIRST, "resnet18-bs64")
DEPTH = (FIRST, "resnet34-bs32")
BELOW, ABOVE = (-math.inf, 0.0), (0.0, math.inf)

_PAPER = paper_claims()

CLAIMS = (
    Claim(_PAPER["a"], (FIRST,), CONVERGENCE, (-math.inf, CONVERGED_BY)),
    Claim(_PAPER["b"], (FIRST,), FLUCTUATION, (-math.inf, SMALL_STEP)),
    Claim(_PAPER["c"], BATCH, CONVERGENCE, BELOW),
    Claim(_PAPER["d"], BATCH, ROUGHNESS, BELOW),
    Claim(_PAPER["e1"], BATCH, FINAL_ACCURACY, BELOW, LATE_ACCURACY),
    Claim(_PAPER["e2"], BATCH, FINAL_ACCURACY, (-SLIGHT, math.inf), LATE_ACCURACY),
    Claim(_PAPER["f"], DEPTH, CONVERGENCE, BELOW),
    Claim(_PAPER["g"], DEPTH, FINAL_ACCURACY, ABOVE, LATE_ACCURACY),
    Claim(_PAPER["h"], DEPTH, TRAINING_TIME, ABOUT_DOUBLE, by_seeds=False),
    Claim(_PAPER["i"], ("without augmentation", FULL), FINAL_ACCURACY, ABOVE),
    Claim(_PAPER["j"], ("random weights", FULL), FINAL_ACCURACY, ABOVE),
)


# ---- which runs a claim is judged by


def our_sessions(
    claim: Claim, runs: Sequence[Run], seeds: Sequence[Run] = (), ablations: Sequence[Run] = ()
) -> dict[str, dict[int, Run]]:
    """Find the sessions of ours that judge a claim: session name → seed → run.

    Args:
        claim: the claim.
        runs: the sessions of experiments.yaml, among them the paper's.
        seeds: those of seeds.yaml. They judge what one seed can't, if each of the claim's sessions has `MIN_SEEDS`.
        ablations: those of ablations.yaml, the first of the full method.
    """
    if claim.of_ablations:
        return ablation_sessions(ablations)
    repeated = paper_sessions(seeds) if claim.by_seeds else {}
    enough = all(len(repeated.get(name, ())) >= MIN_SEEDS for name in claim.sessions)
    return repeated if enough else paper_sessions(runs)


def paper_sessions(runs: Sequence[Run]) -> dict[str, dict[int, Run]]:
    """Find the paper's sessions among ``runs`` by their settings: session name → seed → run.

    Sessions that are compared must differ in nothing but model, batch size and seed, and must start from weights of
    the same source. Where runs fall into several such families, the one with most of the paper's sessions is taken,
    then with most runs, then the first. A seed that is there twice counts once: it is no new evidence.
    """
    families: dict[frozenset, dict[str, dict[int, Run]]] = {}
    for run in runs:
        settings = run.info.settings
        for name, own in SESSIONS.items():
            if all(getattr(settings, key) == value for key, value in own.items()):
                shared = settings.model_dump(exclude={*NOT_INPUTS, *own, "seed"})
                shared["weights"] = run.info.weights.source
                family = families.setdefault(frozenset(shared.items()), {})
                family.setdefault(name, {}).setdefault(settings.seed, run)
    return max(families.values(), key=lambda family: (len(family), sum(map(len, family.values()))), default={})


def ablation_sessions(runs: Sequence[Run]) -> dict[str, dict[int, Run]]:
    """Find the full method and each of `ABLATIONS` among the ablations: name → seed → run.

    The first run is of the full method; the others of its settings are its seeds.
    """
    found: dict[str, dict[int, Run]] = {}
    for run in runs:
        name = FULL if _same_method(run, runs[0]) else _ablation(run, runs[0])
        if name:
            found.setdefault(name, {}).setdefault(run.info.settings.seed, run)
    return found


def _same_method(run: Run, other: Run, *leaving_out: str) -> bool:
    one, two = (each.info.settings.model_dump(exclude={*NOT_INPUTS, "seed", *leaving_out}) for each in (run, other))
    starts = {(each.info.weights.source, each.info.weights.sha256) for each in (run, other)}
    return one == two and ("weights" in leaving_out or len(starts) == 1)


def _ablation(run: Run, full: Run) -> str | None:
    """The ablation that ``run`` is, if it is one of `ABLATIONS` and differs from ``full`` in nothing else."""
    settings = {"without augmentation": AUGMENTATION, "random weights": ("weights",)}
    for name, of in ABLATIONS.items():
        if of(run) and not of(full) and _same_method(run, full, *settings[name]):
            return name
    return None
