"""The command line: ``flowerlib VERB``, or ``python -m flowerlib VERB``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from flowerlib.allocator import restart_with_allocator
from flowerlib.errors import UserError
from flowerlib.files import NOTEBOOKS, REPORT, RUNS, user_path

if TYPE_CHECKING:
    from flowerlib.experiment import Experiment
    from flowerlib.sessions import Executor

ENGINES = ("auto", "tex", "typst")
_DATA_HELP = "flowers (the paper's photos), synthetic, or a folder of class folders"


class _Terminated(KeyboardInterrupt):
    """SIGTERM: a batch system's, or a shutdown's, way to end a program. What Ctrl-C would keep is kept."""


def _terminate(*_) -> None:
    raise _Terminated


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        The exit status: 0; 1 for an error that the user can mend; 130 for Ctrl-C; 141 for a closed pipe; 143 for
        SIGTERM.
    """
    signal.signal(signal.SIGTERM, _terminate)
    # a second's work, when notebooks are read: the grammar of international web addresses, which no notebook's check
    # asks for. jsonschema does without where the package can't be imported.
    sys.modules.setdefault("rfc3987_syntax", None)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # an ASCII terminal can't print every class name
            stream.reconfigure(errors="replace")
    options = None
    try:
        options = _parser().parse_args(arguments)
        _require_checkout()
        if options.verb is _predict and arguments is None:  # for the speed: docs/speed.md
            restart_with_allocator()
        status = options.verb(options)
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        word, status = ("Terminated", 143) if isinstance(interrupt, _Terminated) else ("Interrupted", 130)
        print(f"\n{word}. {options.interrupted if options else ''}", file=sys.stderr)
        return status
    except BrokenPipeError:  # `| head` has read enough; Python would complain again when it flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _require_checkout() -> None:
    if not NOTEBOOKS.is_dir():
        raise UserError(
            f"The notebooks are not in {NOTEBOOKS}: they and the report's templates lie beside the package in its "
            "checkout. Install flowerlib from there with 'pip install -e .', or run 'make env' there."
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowerlib", description="Fine-tune networks on photos of flowers, and write a report."
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    data = verbs.add_parser("data", help="fetch the photos if needed, check them, count them")
    data.add_argument("--data", default="flowers", metavar="SOURCE", help=_DATA_HELP)
    data.set_defaults(verb=_data, interrupted="Photos that have arrived are kept: the same command resumes.")

    run = verbs.add_parser("run", help="run the sessions of experiments.yaml")
    run.add_argument("sessions", nargs="*", metavar="SESSION", help="sessions to run; default: all")
    run.add_argument("--data", metavar="SOURCE", help=_DATA_HELP)
    run.add_argument("--weights", metavar="SOURCE", help="imagenet, none, a file, or a folder of <model>.pth")
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="replace a setting of all sessions; repeatable; see flowerlib/experiment.py",
    )
    run.add_argument("--runs", type=user_path, default=RUNS, metavar="FOLDER",
                     help="where sessions are stored; default: %(default)s")  # fmt: skip
    run.add_argument("--experiments", type=user_path, default=NOTEBOOKS / "experiments.yaml", metavar="FILE",
                     help="the YAML file of the sessions; default: %(default)s")  # fmt: skip
    run.add_argument("--force", action="store_true", help="start again from the first epoch, finished or not")
    several = run.add_mutually_exclusive_group()
    several.add_argument("--jobs", type=_number_from(1), metavar="N", help="run N sessions at once on this machine")
    several.add_argument("--cluster", metavar="ADDRESS",
                         help="run them on a Dask cluster: tcp://host:8786, or a scheduler file")  # fmt: skip
    run.set_defaults(
        verb=_run, interrupted="Finished epochs are kept: the same command, without --force, resumes after them."
    )

    bench = verbs.add_parser("bench", help="measure how fast training is on this machine, in about ten minutes")
    bench.add_argument("--data", default="flowers", metavar="SOURCE", help=_DATA_HELP)
    bench.add_argument(
        "--out", type=user_path, default=REPORT / "build" / "bench", metavar="FOLDER",
        help="where the tables go; default: %(default)s"
    )  # fmt: skip
    bench.add_argument("--repetitions", type=_number_from(1), default=3, metavar="N",
                       help="of each measurement; default: %(default)s")  # fmt: skip
    bench.add_argument("--epochs", type=_number_from(0), default=0, metavar="N",
                       help="also train each way for N epochs from ImageNet weights: accuracy.csv")  # fmt: skip
    bench.set_defaults(verb=_bench, interrupted="Completed tables have been written.")

    export = verbs.add_parser("export", help="write a session's best.pt as an ONNX file")
    export.add_argument("checkpoint", type=user_path, metavar="CHECKPOINT", help="runs/<dataset>/<session>/best.pt")
    export.add_argument("out", type=user_path, metavar="FILE", help="the ONNX file")
    export.set_defaults(verb=_export, interrupted="Nothing was written.")

    predict = verbs.add_parser("predict", help="say what is in photos")
    predict.add_argument("checkpoint", type=user_path, metavar="CHECKPOINT",
                         help="a session's best.pt or last.pt, or an exported ONNX file")  # fmt: skip
    predict.add_argument("photos", nargs="+", metavar="PHOTO|FOLDER", help="folders are searched for photos")
    predict.add_argument(
        "--top", type=_number_from(1), default=3, metavar="N", help="print N classes; default: %(default)s"
    )
    predict.add_argument("--csv", type=user_path, metavar="FILE", help="write a probability for each class")
    predict.add_argument("--sheet", type=user_path, metavar="FILE.png", help="draw the photos under their answers")
    predict.set_defaults(verb=_predict, interrupted="Nothing was written.")

    report = verbs.add_parser("report", help="make the PDF of finished sessions")
    report.add_argument("--runs", type=user_path, default=RUNS, metavar="FOLDER",
                        help="a folder of finished sessions; default: %(default)s")  # fmt: skip
    report.add_argument(
        "--out",
        type=user_path,
        default=REPORT / "build",
        metavar="FOLDER",
        help="where the report goes; default: %(default)s",
    )
    report.add_argument(
        "--engine", choices=ENGINES, default="auto", help="auto: TeX if it is installed and succeeds, else Typst"
    )
    report.add_argument("--no-gallery", action="store_true", help="leave out photos, even if they are available")
    report.set_defaults(verb=_report, interrupted="An earlier report is untouched.")
    return parser


def _number_from(least: int) -> Callable[[str], int]:
    """Reads a whole number from ``least`` on."""

    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"a number from {least} on is needed, not {value}")
        return value

    return number


# Each verb imports what it needs: PyTorch and nbconvert take seconds, which --help should not cost.


def _data(options: argparse.Namespace) -> int:
    from flowerlib.data.audit import print_audit

    return print_audit(options.data)


def _run(options: argparse.Namespace) -> int:
    from flowerlib.experiment import Experiment, base_name, parse_override, read_experiments
    from flowerlib.sessions import run_sessions

    overrides = dict(parse_override(text) for text in options.set)
    for key in ("data", "weights"):
        if (value := getattr(options, key)) is not None:
            overrides[key] = value
    # an error in them is the command line's, not the file's
    Experiment(**{key: value for key, value in overrides.items() if key not in ("seeds", "folds", "fold")})
    experiments = read_experiments(options.experiments, overrides)
    chosen = {}
    for name in options.sessions or experiments:
        named = {key: each for key, each in experiments.items() if name in (key, base_name(key, each))}
        if not named:
            raise UserError(f"{options.experiments} has no session '{name}'. There are: {', '.join(experiments)}.")
        chosen |= named
    # another file's sessions, such as ablations.yaml's, get a folder of their own: the report takes them apart
    group = options.experiments.stem if options.experiments.stem != "experiments" else ""
    distinct = _without_repetitions(chosen)
    failed = run_sessions(distinct, options.runs, group, force=options.force, executor=_executor(options))
    if failed:
        print(f"error: {len(failed)} of {len(distinct)} sessions failed: {', '.join(failed)}.", file=sys.stderr)
    return 1 if failed else 0


def _executor(options: argparse.Namespace) -> Executor | None:
    """How sessions are run: None for one after the other."""
    if options.jobs is None and options.cluster is None:
        return None
    from flowerlib.cluster import run_here, run_there

    if options.cluster is not None:
        return partial(run_there, options.cluster)
    return partial(run_here, options.jobs)


def _without_repetitions(experiments: Mapping[str, Experiment]) -> dict[str, Experiment]:
    """Leave out sessions that are equal to an earlier one: ``--set`` may have taken their difference away."""
    first = {}
    for name, experiment in experiments.items():
        if (same := first.setdefault(experiment, name)) != name:
            print(f"{name}: left out: with these settings it equals {same}")
    return {name: experiment for experiment, name in first.items()}


def _bench(options: argparse.Namespace) -> int:
    from flowerlib.bench.speed import run_bench

    run_bench(options.data, options.out, options.repetitions, options.epochs)
    return 0


def _export(options: argparse.Namespace) -> int:
    from flowerlib.training.export import export_onnx

    export_onnx(options.checkpoint, options.out)
    print(f"{options.out}, checked against the network; its metadata name the classes and the input")
    return 0


def _predict(options: argparse.Namespace) -> int:
    from flowerlib.predict import predict_photos

    predict_photos(options.checkpoint, options.photos, options.top, options.csv, options.sheet)
    return 0


def _report(options: argparse.Namespace) -> int:
    from flowerlib.report.build import make_report

    pdf = make_report(options.runs, options.out, options.engine, not options.no_gallery)
    print(f"{pdf}; its LaTeX, tables and figures lie beside it")
    return 0
