"""How the report describes photos, method, initial weights and machines: from run.json, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flowerlib.data.photos import FLOWERS, SYNTHETIC, paper_fingerprint
from flowerlib.experiment import CROP_AREA, CROP_RATIO, Experiment
from flowerlib.report.display import plain
from flowerlib.runs import Computed, Run, Session

IMAGENET = "ImageNet's"

SETTINGS = {  # those whose names say too little
    "freeze": "frozen backbone",
    "lr_factor": "learning-rate factor",
    "lr_step": "epochs between drops of the learning rate",
    "weights": "initial weights",
}

# what tells sessions and machines apart, or is said elsewhere
NOT_OF_THE_METHOD = (
    "data", "skip_bad", "split_seed", "model", "weights", "seed", "batch_size", "device", "precision", "repeats"
)  # fmt: skip

# what decides, with the seed, how a picture is changed
AUGMENTATION = (
    "image_size", "random_crop", "flip", "rotation", "brightness", "contrast", "saturation", "hue", "translation"
)  # fmt: skip


def notice(sessions: Sequence[Session]) -> str:
    """What a reader must know before any number: other photos or other weights than the paper's."""
    said = []
    if is_synthetic(sessions):
        said.append("A demonstration on synthetic pictures: no photo of a flower was used.")
    elif not is_of_papers_photos(sessions):
        name = sessions[0].info.dataset.name
        exactly = "exactly " if name == FLOWERS else ""
        said.append(f"Photos of the data set {plain(name)}, not {exactly}the course report's.")
    said.append(weights_note(sessions))
    papers = {key: value for key, value in Experiment() if key not in NOT_OF_THE_METHOD}
    if changes := _changes(dict(sessions[0].info.settings), papers):
        said.append(f"Not at the course report's settings: {changes}.")
    return " ".join(filter(None, said))


def is_synthetic(sessions: Sequence[Session]) -> bool:
    """Whether the runs are of the embedded pictures."""
    return any(session.info.dataset.name == SYNTHETIC for session in sessions)


def is_of_papers_photos(sessions: Sequence[Session]) -> bool:
    """Whether the runs are of the paper's photos, all of them and no others, whatever the folder is called."""
    return sessions[0].info.dataset.fingerprint == paper_fingerprint()


def captioned(sessions: Sequence[Session], caption: str) -> str:
    """A caption that says so where the pictures are synthetic, or the initial weights other than the paper's."""
    synthetic = "Synthetic pictures." if is_synthetic(sessions) else ""
    return " ".join(filter(None, [caption, synthetic, weights_note(sessions)]))


def describe_task(session: Session) -> str:
    """What is classified."""
    name = FLOWERS if is_of_papers_photos([session]) else session.info.dataset.name
    known = {FLOWERS: "photographs of flowers", SYNTHETIC: "drawings of flowers made by a program"}
    return known.get(name, f"the pictures of {plain(name)}")


def describe_photos(session: Session) -> str:
    """Classes, counts and the split, as in the paper's introduction."""
    dataset, parts = session.info.dataset, session.info.split
    counts = [f"{count:,} {plain(name)}" for name, count in dataset.classes.items()]
    most = f"from {min(dataset.classes.values()):,} to {max(dataset.classes.values()):,} in a class"
    return (
        f"{dataset.photos:,} pictures in {len(counts)} classes ({', '.join(counts) if len(counts) <= 12 else most}); "
        f"{parts.train:,} are drawn for training and {parts.validation:,} for validation"
    )


def describe_augmentation(session: Session) -> str:
    """What is done to a training picture, in order, without the operations that are left out (section 3.1)."""
    settings, size = session.info.settings, session.info.settings.image_size
    (least, most), (tall, wide) = CROP_AREA, CROP_RATIO
    crop = (
        f"a crop of {least:.0%} to {most:.0%} of its area, of an aspect ratio between {tall:.2f} and {wide:.2f}, is "
        f"resized to {size}×{size} pixels"
        if settings.random_crop
        else f"its centre is cropped and resized to {size}×{size} pixels"
    )
    jitter = [
        f"{name} by up to ±{getattr(settings, name):.0%}"
        for name in ("brightness", "contrast", "saturation")
        if getattr(settings, name)
    ]
    if settings.hue:
        jitter.append(f"hue by up to {settings.hue:g} of the colour circle")
    steps = {
        "flip": f"it is mirrored left to right with probability {settings.flip:g}",
        "rotation": f"it is rotated by up to {settings.rotation:g}° to either side",
        "jitter": f"its colours are changed, in random order: {', '.join(jitter)}",
        "translation": f"it is shifted by up to {settings.translation:.0%} of its side in each direction",
    }
    used = [
        crop,
        *(text for name, text in steps.items() if (jitter if name == "jitter" else getattr(settings, name))),
    ]
    return "; ".join(used)


def describe_network(session: Session) -> str:
    """Network, epochs and batch size in words."""
    settings = session.info.settings
    return (
        f"a {plain(settings.model)} for {settings.epochs} epochs with batches of {settings.batch_size} "
        f"pictures of {settings.image_size}×{settings.image_size} pixels"
    )


def describe_changes(session: Session, first: Session) -> str:
    """The settings in which a session differs from the first: ``batch size 64 instead of 32``."""
    ours, base = (dict(each.info.settings) for each in (session, first))
    # what the setting of weights stands for depends on the environment
    ours["weights"], base["weights"] = _weights_names(session, first) if _weights_differ(session, first) else ("", "")
    return _changes(ours, base) or "nothing"


def _changes(ours: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{SETTINGS.get(key, key.replace('_', ' '))} {_plain_value(ours[key])} instead of {_plain_value(base[key])}"
        for key in base
        if ours[key] != base[key]
    )


def _plain_value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return plain(f"{value:g}" if isinstance(value, float) else value)


def describe_draws(sessions: Sequence[Session]) -> str:
    """Which sessions saw the same random changes of the pictures, as a sentence; empty of one session."""
    if len(sessions) == 1:
        return ""
    groups: dict[tuple, list[str]] = {}
    for session in sessions:
        changes = tuple(getattr(session.info.settings, key) for key in AUGMENTATION)
        for seed in session.seeds:
            groups.setdefault((seed, *changes), []).append(plain(session.name))
    seeds: dict[str, list[int]] = {}
    for (seed, *_), names in groups.items():
        if len(names) > 1:
            seeds.setdefault(", ".join(names), []).append(seed)
    shared = [
        f"{names} (seed{'s' if len(own) > 1 else ''} {', '.join(map(str, own))})" for names, own in seeds.items()
    ]
    if not shared:
        return "No two of our sessions share the random changes of their pictures."
    return (
        "Where our sessions share a seed, a picture is changed alike in the same epoch, in training and in augmented "
        f"validation: {'; '.join(shared)}. What such a draw does to all of them alike is not in their differences."
    )


def describe_start(session: Session) -> str:
    """What the networks start from, for the abstract."""
    starts = {
        "imagenet": "weights trained on ImageNet",
        "file": f"weights other than the course report's ({plain(_weights_origin(session))})",
        "none": "random weights, so that nothing is transferred",
    }
    return starts[session.info.weights.source]


def describe_weights(session: Session) -> str:
    """Where the network's initial weights come from, as a sentence."""
    weights = session.info.weights
    known = f", {_weights_origin(session)}" if weights.trained_on else ""
    sentences = {
        "imagenet": r"Its weights are those of torchvision, trained on ImageNet \cite{deng2009}.",
        "file": f"Its weights come from the local file {plain(weights.file or '')}{plain(known)}; they are not "
        "the course report's, which are torchvision's of ImageNet.",
        "none": "Its weights start at random: nothing is transferred.",
    }
    return sentences[weights.source]


def transfers(session: Session) -> bool:
    """Whether the network starts from weights learned elsewhere."""
    return session.info.weights.source != "none"


def weights_note(sessions: Sequence[Session]) -> str:
    """What networks start from instead of the paper's weights, as a sentence; empty where all have those.

    Sessions are named where they differ in this from the first, or from others that have the paper's.
    """
    names: dict[str, list[str]] = {}
    for session in sessions:
        names.setdefault(_weights_origin(session), []).append(session.name)
    unnamed = None if IMAGENET in names else next(iter(names))
    said = [
        origin if origin == unnamed else f"{origin} ({', '.join(group)})"
        for origin, group in names.items()
        if origin != IMAGENET
    ]
    return f"Initial weights other than the course report's: {plain('; '.join(said))}." if said else ""


def _weights_origin(session: Session) -> str:
    weights = session.info.weights
    known = weights.trained_on  # runs of earlier versions say nothing of it
    own = f"trained on {known}" if known else f"the file {weights.file}"
    return {"imagenet": IMAGENET, "file": own, "none": "random"}[weights.source]


def _weights_differ(session: Session, first: Session) -> bool:
    """Of one network whether the files do; those of two must."""
    same_network = session.info.settings.model == first.info.settings.model
    keys = ("source", "sha256") if same_network else ("source", "trained_on")
    ours, base = ([getattr(each.info.weights, key) for key in keys] for each in (session, first))
    return ours != base


def _weights_names(*sessions: Session) -> list[str]:
    """Where weights come from, with their files where that tells them not apart."""
    origins = [_weights_origin(each) for each in sessions]
    files = [f"{origin} ({each.info.weights.file})" for origin, each in zip(origins, sessions, strict=True)]
    return origins if len(set(origins)) > 1 else files


def provenance(sessions: Sequence[Session]) -> str:
    """On what the sessions were run: each line once, with its runs where they differ."""
    lines: dict[str, list[str]] = {}
    for session in sessions:
        for run in session.runs:
            lines.setdefault(_computed_with(run), []).append(plain(run.name))
    if len(lines) == 1:
        return f"*Computed with* {next(iter(lines))}"
    return " ".join(f"*{', '.join(names)} computed with* {line}" for line, names in lines.items())


def _computed_with(run: Run) -> str:
    info = run.info
    starts = [0, *(part.epochs for part in info.earlier)]
    earlier = "".join(
        f" Epochs {start} to {part.epochs - 1} were computed with {_computer(part)}."
        for start, part in zip(starts, info.earlier, strict=False)
    )
    return (
        f"{_computer(info)}; precision {info.precision}.{earlier} "
        f"Data {info.dataset.fingerprint[:12]}, split {info.split.fingerprint[:12]}."
    )


def _computer(part: Computed) -> str:
    """Versions, device and commit, of a run or of its earlier epochs."""
    versions = ", ".join(f"{name} {number}" for name, number in part.versions.items())
    device = part.device
    commit, _, dirty = (part.commit or "").partition("-")
    commit = f"; commit {commit[:12]}{' with changes' if dirty else ''}" if commit else ""
    return f"{versions}; {device.type} ({plain(device.name)}, {device.threads} threads){commit}"
