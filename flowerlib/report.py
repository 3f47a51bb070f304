"""The report: what it says of the runs, and how it is made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml

from flowerlib.augment import CROP_AREA, CROP_RATIO
from flowerlib.document import Figure, Prose, Table, TitlePage, plain
from flowerlib.errors import UserError
from flowerlib.experiment import read_experiments
from flowerlib.figures import session_figure
from flowerlib.files import NOTEBOOKS, REPORT, make_folder
from flowerlib.metrics import Run, read_info, read_runs
from flowerlib.pdf import build_report
from flowerlib.sessions import execute_notebook
from flowerlib.tables import epoch_table, frame_table

REPORT_NOTEBOOK = NOTEBOOKS / "report.ipynb"
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")

# Tables 1-3 and the comparisons follow the paper's protocol: its validation photos were augmented
PAPER_METRICS = {
    "train_loss": "Train loss",
    "train_acc": "Train acc",
    "val_aug_loss": "Val loss",
    "val_aug_acc": "Val acc",
}


def make_report(runs: Path, out: Path, engine: str) -> Path:
    """Execute report.ipynb on the runs and print it.

    Args:
        runs: a folder of sessions, or a folder of data sets of which one has sessions.
        out: gets report.pdf, report.tex, report.ipynb (executed), figures/ and tables/.
        engine: ``auto``, ``tex`` or ``typst``.

    Returns:
        Path of report.pdf.

    Raises:
        UserError: there are no finished sessions, or the notebook or the PDF fails.
    """
    folder = find_sessions(runs)
    executed = make_folder(out) / "report.ipynb"
    execute_notebook(REPORT_NOTEBOOK, executed, {"runs": str(folder)}, log=out / "report.log")
    return build_report(executed, out, engine)


def find_sessions(runs: Path) -> Path:
    """The folder of sessions meant by ``runs``: itself, or the one data set in it that has finished sessions.

    Where there are several, it is ``flowers``; what is taken and what is left out is printed.
    """
    found = {
        path.parent: read_info(path.parent) for path in [*runs.glob("[!.]*/run.json"), *runs.glob("*/[!.]*/run.json")]
    }
    folders = sorted({folder.parent for folder, info in found.items() if info["finished"]})
    chosen = [folder for folder in folders if folder.name == "flowers"] if len(folders) > 1 else folders
    if not chosen:
        several = f"Choose one with --runs: {', '.join(map(str, folders))}."
        none = f"There is no finished session in {runs}. Run them first: python -m flowerlib run"
        raise UserError(several if folders else none)
    print(f"report of {chosen[0]}")
    for folder in folders:
        if folder != chosen[0]:
            print(f"not in it, another data set: {folder}; choose it with --runs")
    for folder, info in found.items():
        if folder.parent == chosen[0] and not info["finished"]:
            print(f"not in it, not finished: {folder.name}")
    return chosen[0]


def load_sessions(folder: Path) -> list[Run]:
    """The finished sessions of a folder, those of experiments.yaml first, in its order.

    Raises:
        UserError: there are none, or they were not run on the same photos and split: they can't be compared.
    """
    runs = read_runs(Path(folder), order=list(read_experiments(NOTEBOOKS / "experiments.yaml")))
    for run in runs[1:]:
        if run.info["split"]["fingerprint"] != runs[0].info["split"]["fingerprint"]:
            raise UserError(
                f"The sessions {runs[0].name} and {run.name} in {folder} have different photos or another split. Run "
                "one of them again with --force, or report them from different folders."
            )
    return runs


def title_page(runs: Sequence[Run], path: Path = REPORT / "title.yaml") -> TitlePage:
    """Title and authors from the student's file, and a notice where data or weights are not the paper's."""
    try:
        page = yaml.safe_load(path.read_text(encoding="utf-8"))
        authors = [str(name) for name in page["authors"]]
        return TitlePage(str(page["title"]), authors, str(page["date"]), notice(runs))
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(f"{path} must give title, authors (a list) and date: {error!r}.") from error


def notice(runs: Sequence[Run]) -> str:
    """What a reader must know before any number: other photos or other weights than the paper's."""
    said = []
    if is_synthetic(runs):
        said.append("A demonstration on synthetic pictures: no photo of a flower was used.")
    elif runs[0].info["dataset"]["name"] != "flowers":
        said.append(f"Photos of the data set {runs[0].info['dataset']['name']}, not the paper's.")
    sources = {run.info["weights"]["source"] for run in runs}
    if sources != {"imagenet"}:
        said.append(f"Initial weights: {' and '.join(sorted(set(map(_weights_text, runs))))}; not ImageNet's.")
    return " ".join(said)


def is_synthetic(runs: Sequence[Run]) -> bool:
    """Whether the runs are of the embedded pictures."""
    return any(run.info["dataset"]["name"] == "synthetic" for run in runs)


def describe_photos(run: Run) -> str:
    """Classes, counts and the split, as in the paper's introduction."""
    dataset, parts = run.info["dataset"], run.info["split"]
    counts = ", ".join(f"{count:,} {plain(name)}" for name, count in dataset["classes"].items())
    return (
        f"{dataset['photos']:,} pictures in {len(dataset['classes'])} classes ({counts}); "
        f"{parts['train']:,} are drawn for training and {parts['validation']:,} for validation"
    )


def describe_augmentation(run: Run) -> str:
    """What is done to a training picture, in order, without the operations that are left out (section 3.1)."""
    settings, size = run.info["settings"], run.info["settings"]["image_size"]
    (least, most), (tall, wide) = CROP_AREA, CROP_RATIO
    crop = (
        f"a crop of {least:.0%} to {most:.0%} of its area, of an aspect ratio between {tall:.2f} and {wide:.2f}, is "
        f"resized to {size}×{size} pixels"
        if settings["random_crop"]
        else f"its centre is cropped and resized to {size}×{size} pixels"
    )
    factors = [f"{name} by up to ±{settings[name]:.0%}" for name in ("brightness", "contrast", "saturation")]
    jitter = [
        text for text, name in zip(factors, ("brightness", "contrast", "saturation"), strict=True) if settings[name]
    ]
    if settings["hue"]:
        jitter.append(f"hue by up to {settings['hue']:g} of the colour circle")
    steps = {
        "flip": f"it is mirrored left to right with probability {settings['flip']:g}",
        "rotation": f"it is rotated by up to {settings['rotation']:g}° to either side",
        "jitter": f"its colours are changed, in random order: {', '.join(jitter)}",
        "translation": f"it is shifted by up to {settings['translation']:.0%} of its side in each direction",
    }
    used = [crop, *(text for name, text in steps.items() if (jitter if name == "jitter" else settings[name]))]
    return "; ".join(used)


def describe_changes(run: Run, first: Run) -> str:
    """The settings in which a session differs from the first: ``batch size 64 instead of 32``."""
    ours, base = run.info["settings"], first.info["settings"]
    changes = [
        f"{plain(key.replace('_', ' '))} {plain(ours[key])} instead of {plain(base[key])}"
        for key in ours
        if ours[key] != base.get(key)
    ]
    return " and ".join(changes) or "nothing"


def describe_result(run: Run) -> str:
    """A session's validation accuracy under the paper's protocol, in one sentence."""
    accuracy, late = run.metrics["val_aug_acc"], later_half(run.metrics)["val_aug_acc"]
    best = run.metrics.loc[accuracy.idxmax()]
    text = (
        f"Its augmented validation accuracy is best after epoch {best.epoch:.0f}, at {best.val_aug_acc:.3f}, "
        f"and {accuracy.iloc[-1]:.3f} at the end"
    )
    if len(late) < 2:
        return f"{text}."
    return (
        f"{text}; over the later half of the epochs it is {late.mean():.3f} on average and changes by "
        f"{late.diff().abs().mean():.3f} from one epoch to the next."
    )


def session_parts(runs: Sequence[Run], position: int) -> list[Prose | Table | Figure]:
    """What the report says and shows of one session, in the order of the paper's section 4.

    Args:
        runs: all sessions; the first is the one that the others are compared with.
        position: which one, from 0.
    """
    run, first = runs[position], runs[0]
    ordinal = ORDINALS[position] if position < len(ORDINALS) else "next"
    table = epoch_table(
        run.metrics,
        PAPER_METRICS,
        run.name,
        captioned(runs, f"Session {plain(run.name)}: training, and validation on augmented photos, as in the paper."),
    )
    caption = f"Session {plain(run.name)}: loss and accuracy over the epochs, validation under both protocols."
    if run is first:
        text = f"The {ordinal} training session, {plain(run.name)}, trains {describe_network(run)}."
        curves = session_figure(run)
    else:
        text = (
            f"The {ordinal} training session, {plain(run.name)}, has {describe_changes(run, first)}; "
            "all else is as in the first."
        )
        curves = session_figure(run, first)
        caption += f" Below: its augmented validation and that of {plain(first.name)}."
    figure = Figure(curves, run.name, captioned(runs, caption), width=1.0)
    shown = rf"Table \ref{{{table.label}}} lists its metrics, and Figure \ref{{{figure.label}}} shows them."
    return [Prose(f"{text} {shown} {describe_result(run)}"), table, figure]


def describe_network(run: Run) -> str:
    """Network, epochs and batch size in words."""
    settings = run.info["settings"]
    return (
        f"a {plain(settings['model'])} for {settings['epochs']} epochs with batches of {settings['batch_size']} "
        f"pictures of {settings['image_size']}×{settings['image_size']} pixels"
    )


def summary_table(runs: Sequence[Run]) -> Table:
    """Validation accuracy of each session under both protocols, kept apart."""
    frame = pd.DataFrame(
        {
            "Session": run.name,
            "Clean, best": run.metrics["val_acc"].max(),
            "Clean, last": run.metrics["val_acc"].iloc[-1],
            "Augmented, best": run.metrics["val_aug_acc"].max(),
            "Augmented, last": run.metrics["val_aug_acc"].iloc[-1],
        }
        for run in runs
    )
    return frame_table(
        frame,
        "summary",
        captioned(runs, "Validation accuracy: on clean pictures, and on augmented ones as the paper measured."),
    )


def duration_table(runs: Sequence[Run]) -> Table:
    """Seconds of training and of evaluation, and their ratio to the first session's."""
    seconds = pd.DataFrame(
        {
            "Session": run.name,
            "Training (s)": run.metrics["train_seconds"].sum(),
            "An epoch (s)": run.metrics["train_seconds"].mean(),
            "Validation (s)": run.metrics["val_seconds"].sum(),
        }
        for run in runs
    )
    seconds["Training, relative"] = seconds["Training (s)"] / seconds["Training (s)"].iloc[0]
    formats = {"Training (s)": ".0f", "An epoch (s)": ".1f", "Validation (s)": ".0f", "Training, relative": ".2f"}
    return frame_table(
        seconds,
        "durations",
        captioned(runs, "Time of the sessions; validation is done twice an epoch, clean and augmented."),
        formats,
    )


def captioned(runs: Sequence[Run], caption: str) -> str:
    """A caption that says so where the pictures are synthetic."""
    return f"{caption} Synthetic pictures." if is_synthetic(runs) else caption


def describe_weights(run: Run) -> str:
    """Where the network's initial weights come from, as a sentence."""
    weights = run.info["weights"]
    sentences = {
        "imagenet": r"Its weights are those of torchvision, trained on ImageNet \cite{deng2009}.",
        "file": f"Its weights come from the local file {plain(weights['file'] or '')}; they are not ImageNet's.",
        "none": "Its weights start at random: nothing is transferred in these sessions.",
    }
    return sentences[weights["source"]]


def describe_task(run: Run) -> str:
    """What is classified."""
    name = run.info["dataset"]["name"]
    known = {"flowers": "photographs of flowers", "synthetic": "drawings of flowers made by a program"}
    return known.get(name, f"the pictures of {plain(name)}")


def describe_start(run: Run) -> str:
    """What the networks start from, for the abstract."""
    starts = {
        "imagenet": "weights trained on ImageNet",
        "file": "weights trained elsewhere, not ImageNet's",
        "none": "random weights, so that nothing is transferred",
    }
    return starts[run.info["weights"]["source"]]


def transfers(run: Run) -> bool:
    """Whether the network starts from weights learned elsewhere."""
    return run.info["weights"]["source"] != "none"


def conclusion(runs: Sequence[Run]) -> str:
    """What the sessions show beside one another, without a judgement beyond the numbers."""
    final = {run.name: later_half(run.metrics)["val_aug_acc"].mean() for run in runs}
    ranking = ", ".join(f"{plain(name)} {final[name]:.3f}" for name in sorted(final, key=final.get, reverse=True))
    photos = runs[0].info["split"]["validation"]
    seconds = {run.name: run.metrics["train_seconds"].sum() for run in runs}
    times = ", ".join(f"{plain(name)} {value / seconds[runs[0].name]:.2f}" for name, value in seconds.items())
    return (
        f"By mean augmented validation accuracy over the later half of the epochs the order of the sessions is "
        f"{ranking}. With {photos:,} validation pictures one picture is {1 / photos:.4f}, and each session was run "
        f"once: small differences do not decide which setting is better. Training time relative to the first "
        f"session: {times}."
    )


def provenance(runs: Sequence[Run]) -> str:
    """On what the sessions were run: each line once, with its sessions where they differ."""
    lines: dict[str, list[str]] = {}
    for run in runs:
        lines.setdefault(_computed_with(run), []).append(plain(run.name))
    if len(lines) == 1:
        return f"*Computed with* {next(iter(lines))}"
    return " ".join(f"*{', '.join(names)} computed with* {line}" for line, names in lines.items())


def _computed_with(run: Run) -> str:
    info = run.info
    versions = ", ".join(f"{name} {number}" for name, number in info["versions"].items())
    commit, _, dirty = (info["commit"] or "").partition("-")
    commit = f"; commit {commit[:12]}{' with changes' if dirty else ''}" if commit else ""
    return (
        f"{versions}; {info['device']['type']} ({plain(info['device']['name'])}, {info['device']['threads']} "
        f"threads), precision {info['precision']}, seed {info['seed']}{commit}. "
        f"Data {info['dataset']['fingerprint'][:12]}, split {info['split']['fingerprint'][:12]}."
    )


def later_half(metrics: pd.DataFrame) -> pd.DataFrame:
    """The later half of the epochs: where the paper, at 20 epochs, calls the network converged."""
    return metrics.iloc[len(metrics) // 2 :]


def _weights_text(run: Run) -> str:
    weights = run.info["weights"]
    kinds = {"none": "random", "imagenet": "ImageNet's", "file": f"the local file {weights['file']}"}
    return kinds[weights["source"]]
