"""Data, weights, settings and machines, as tables: what a reader needs to run the sessions again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from flowerlib.data.listing import VALIDATION, part_of
from flowerlib.data.photos import SYNTHETIC
from flowerlib.experiment import Experiment
from flowerlib.report.display import escaped
from flowerlib.report.grouping import Session
from flowerlib.report.phrases import IMAGENET_WEIGHTS, decimal, in_words, label, listing, network, start, whole
from flowerlib.report.results import all_runs, is_of_papers_photos
from flowerlib.runs import NOT_INPUTS, Computed

# what tells sessions and machines apart, or is told elsewhere
NOT_THE_METHOD = {*NOT_INPUTS, "model", "batch_size", "seed"}
MOST_NAMED = 12  # classes in a sentence


def is_synthetic(sessions: Sequence[Session]) -> bool:
    """Whether the photos are the embedded, generated ones."""
    return sessions[0].info.dataset.name == SYNTHETIC


# ---- what differs from the course report


def mark(sessions: Sequence[Session]) -> str:
    """What captions add where something differs: `` †``, or nothing. The notice on the title page says what."""
    same = is_of_papers_photos(sessions) and not other_weights(sessions) and not changed_settings(sessions[0])
    return "" if same else " †"


def other_weights(sessions: Sequence[Session]) -> str:
    """What networks start from that is not ImageNet's, with their sessions' names if not all do; else empty."""
    return "; ".join(_starts([each for each in sessions if start(each.info) != IMAGENET_WEIGHTS], sessions))


def starts(sessions: Sequence[Session]) -> str:
    """What the networks start from, with their sessions' names where they differ in it."""
    return listing(_starts(sessions, sessions))


def _starts(some: Sequence[Session], sessions: Sequence[Session]) -> list[str]:
    named: dict[str, list[str]] = {}
    for session in some:
        named.setdefault(start(session.info), []).append(label(session, sessions))
    if len({start(each.info) for each in sessions}) == 1:
        return list(named)
    return [f"{text} ({listing(names)})" for text, names in named.items()]


def changed_settings(session: Session) -> str:
    """The method's settings that differ from the paper's: ``epochs 3 instead of 20``."""
    ours, papers = dict(session.info.settings), dict(Experiment())
    return ", ".join(
        f"{name.replace('_', ' ')} {_value(ours[name])} instead of {_value(papers[name])}"
        for name in papers
        if name not in NOT_THE_METHOD and ours[name] != papers[name]
    )


def differences(session: Session, first: Session) -> str:
    """The settings in which a session differs from the first: ``batch size 64 instead of 32``."""
    ours, base = (_described(each) for each in (session, first))
    said = [
        " ".join(filter(None, [name.strip(), ours[name], "instead of", base[name]]))
        for name in ours
        if ours[name] != base[name]
    ]
    return listing(said) if said else "the same settings"


def _described(session: Session) -> dict[str, str]:
    """The settings that tell sessions apart, by name; networks and weights name themselves."""
    apart = {"seed", "data", "cache", "device", "precision", "repeats", "model", "weights"}
    described = {"": network(session.info.settings.model), " ": start(session.info)}
    return described | {
        name.replace("_", " "): _value(value) for name, value in session.info.settings if name not in apart
    }


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}".removeprefix("0") or "0" if isinstance(value, float) else escaped(str(value))


# ---- cards


def classes_in_words(session: Session) -> str:
    """``588 daisy, 556 dandelion, …``; for many classes their smallest and largest."""
    counts = session.info.dataset.classes
    if len(counts) <= MOST_NAMED:
        return ", ".join(f"{whole(count)} {name}" for name, count in counts.items())
    return f"from {whole(min(counts.values()))} to {whole(max(counts.values()))} in a class"


def data_card(sessions: Sequence[Session], pairs: pd.Series | None) -> pd.DataFrame:
    """The photos: columns ``Item`` and ``Value``; ``pairs`` as in `flowerlib.report.results.pair_counts`."""
    session = sessions[0]
    info = session.info
    papers = is_of_papers_photos(sessions)
    rows = {
        "Origin": "the course report's data set" if papers else info.dataset.name,
        "Photos": f"{whole(info.dataset.photos)}: {classes_in_words(session)}",
        "Initial weights": starts(sessions),
        "Left out": whole(len(info.dataset.skipped)),
        "Split": f"{split_in_words(session)}: {split_sides(session)}",
        "Fingerprint": f"{info.dataset.fingerprint[:12]}, split {info.split.fingerprint[:12]}",
    }
    if pairs is not None:
        rows["Near-duplicates"] = (
            f"{whole(pairs['pairs'])} pairs: {whole(pairs['identical'])} identical, {whole(pairs['contradictory'])} "
            f"under two labels, {whole(pairs['across'])} across the split"
        )
    return pd.DataFrame({"Item": rows.keys(), "Value": rows.values()})


def split_in_words(session: Session) -> str:
    """How the photos were split: ``random, not stratified``."""
    settings = session.info.settings
    first = session.runs[0].predictions["photo"].iloc[0]
    if settings.split == "auto" and part_of(first) == VALIDATION and not settings.folds:
        return "by the maker of the data set"
    how = {"stratified": "random, stratified by class", "grouped": "random, near-duplicates on one side"}
    return how.get(settings.split, "random, not stratified")


def split_sides(session: Session) -> str:
    """The photos on each side of the split: ``80 train, 20 validate``."""
    split, folds = session.info.split, session.info.settings.folds
    if folds:
        return f"{in_words(folds)} folds, in which each of {whole(split.validation)} photos validates once"
    test = f", {whole(split.test)} test" if split.test else ""
    return f"{whole(split.train)} train, {whole(split.validation)} validate{test}"


def compute_card(sessions: Sequence[Session]) -> pd.DataFrame:
    """A row a session: parameters, multiply-adds, hours, memory and precision."""
    rows = []
    for session in sessions:
        info = session.info
        seconds = sum(run.metrics[["train_seconds", "val_seconds"]].to_numpy().sum() for run in session.runs)
        rows.append(
            {
                "Session": label(session, sessions),
                "Parameters (M)": "–" if info.model is None else decimal(info.model.parameters / 1e6, 1),
                "Multiply-adds (G)": "–" if info.model is None else decimal(info.model.multiply_adds / 1e9, 2),
                "Hours": decimal(seconds / 3600, 1),
                "Memory (GiB)": "–" if info.peak_memory is None else decimal(info.peak_memory / 1024, 1),
                "Precision": info.precision,
            }
        )
    return pd.DataFrame(rows)


def computers(sessions: Sequence[Session]) -> list[str]:
    """Versions, device and commit of each run and of its epochs before a resume, each told once."""
    told: dict[str, list[str]] = {}
    for run in all_runs(sessions):
        for part in (run.info, *run.info.earlier):
            told.setdefault(_computer(part), []).append(escaped(run.name))
    everybody = len(told) == 1
    return [text if everybody else f"{text} ({listing(list(dict.fromkeys(names)))})" for text, names in told.items()]


def _computer(part: Computed) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in part.versions.items())
    commit, _, dirty = (part.commit or "").partition("-")
    commit = f"; commit {commit[:12]}{' with changes' if dirty else ''}" if commit else ""
    device = part.device
    return f"{versions}; {escaped(device.name)} ({device.type}, {device.threads} threads){commit}"
