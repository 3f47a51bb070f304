"""The report: what it says of the runs, and how it is made."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml

from flowerlib.document import Figure, Prose, Table, TitlePage, plain
from flowerlib.errors import UserError
from flowerlib.experiment import read_experiments
from flowerlib.figures import session_figure
from flowerlib.files import NOTEBOOKS, REPORT, make_folder
from flowerlib.metrics import Run, read_runs
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
    make_folder(out)
    with tempfile.TemporaryDirectory(dir=out, prefix=".report.") as scratch:
        executed = Path(scratch, "report.ipynb")
        try:
            execute_notebook(REPORT_NOTEBOOK, executed, {"runs": str(folder)}, log=out / "report.log")
            return build_report(executed, out, engine)
        finally:
            if executed.exists():
                executed.replace(out / "report.ipynb")


def find_sessions(runs: Path) -> Path:
    """The folder of sessions meant by ``runs``: itself, or the data set in it that has finished sessions."""
    if any(runs.glob("*/run.json")):
        return runs
    datasets = sorted({path.parent.parent for path in runs.glob("*/*/run.json")})
    if len(datasets) > 1:
        print(f"{runs} has runs of several data sets; one report is made of one: choose it with --runs FOLDER.")
        named = [folder for folder in datasets if folder.name == "flowers"]
        datasets = named or datasets
    if len(datasets) > 1:
        raise UserError(f"Choose one with --runs: {', '.join(str(folder) for folder in datasets)}.")
    if not datasets:
        raise UserError(f"There is no session in {runs}. Run them first: python -m flowerlib run")
    print(f"report of {datasets[0]}")
    return datasets[0]


def load_sessions(folder: Path) -> list[Run]:
    """The finished sessions of a folder, those of experiments.yaml first, in its order."""
    return read_runs(Path(folder), order=list(read_experiments(NOTEBOOKS / "experiments.yaml")))


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
    ordinal = ORDINALS[position] if position < len(ORDINALS) else f"{position + 1}th"
    table = epoch_table(
        run.metrics,
        PAPER_METRICS,
        run.name,
        captioned(runs, f"Session {plain(run.name)}: training, and validation on augmented photos, as in the paper."),
    )
    caption = f"Session {plain(run.name)}: loss and accuracy over the epochs, validation under both protocols."
    if run is first:
        text = f"The {ordinal} training session, {plain(run.name)}, trains {described(run)}."
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


def described(run: Run) -> str:
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
    """On what the sessions were run."""
    info = runs[0].info
    versions = ", ".join(f"{name} {number}" for name, number in info["versions"].items())
    commit, _, dirty = (info["commit"] or "").partition("-")
    commit = f"; commit {commit[:12]}{' with changes' if dirty else ''}" if commit else ""
    return (
        f"*Computed with* {versions}; {info['device']['type']} ({plain(info['device']['name'])}, "
        f"{info['device']['threads']} threads), precision {info['precision']}, seed {info['seed']}{commit}. "
        f"Data {info['dataset']['fingerprint'][:12]}, split {info['split']['fingerprint'][:12]}."
    )


def later_half(metrics: pd.DataFrame) -> pd.DataFrame:
    """The later half of the epochs: where the paper, at 20 epochs, calls the network converged."""
    return metrics.iloc[len(metrics) // 2 :]


def _weights_text(run: Run) -> str:
    weights = run.info["weights"]
    kinds = {"none": "random", "imagenet": "ImageNet's", "file": f"the local file {weights['file']}"}
    return kinds[weights["source"]]
