"""The committed reference runs: their report comes out of their tables again, and its numbers stand in CSV files."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from flowerlib.cli import main
from flowerlib.files import REPORT
from flowerlib.report.build import load_pairs

PAPER = REPORT / "results" / "paper"


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory):
    """The report of the reference runs, made from the committed tables alone."""
    out = tmp_path_factory.mktemp("report")
    assert main(["report", "--runs", str(PAPER), "--out", str(out), "--engine", "typst"]) == 0
    return out


def decimals(text: str) -> set[str]:
    """Numbers with a decimal point, but for versions, such as 2.15.0, and LaTeX's widths."""
    text = re.sub(r"p\{[\d.]+\\linewidth\}|width=[\d.]+", "", text)
    return set(re.findall(r"(?<![\d.])\d+\.\d+(?:e-?\d+)?(?!\.?\d)", text))


def without_source(shown: set[str], *sources: str) -> set[str]:
    """Those of the numbers that are no rounded number of the sources."""
    written = [float(number) for source in sources for number in re.findall(r"\d+\.?\d*(?:e-?\d+)?", source)]
    exact = {number for source in sources for number in decimals(source)}
    return {each for each in shown - exact if each not in {f"{n:.{len(each.split('.')[1])}f}" for n in written}}


def csv(table: Path) -> str:
    return table.with_suffix(".csv").read_text()


def test_the_reference_report_comes_out_of_its_tables_again(rebuilt):
    committed, ours = (
        {path.name: pd.read_csv(path) for path in (folder / "tables").glob("*.csv")} for folder in (PAPER, rebuilt)
    )
    assert committed.keys() == ours.keys()
    for name, table in committed.items():
        pd.testing.assert_frame_equal(ours[name], table, obj=name)


def test_near_duplicates_are_used_only_for_the_photos_they_were_found_in(tmp_path):
    assert len(load_pairs(PAPER)) == 23
    (tmp_path / "resnet18-bs32").mkdir()
    for name in ("duplicates.csv", "resnet18-bs32/run.json"):
        (tmp_path / name).write_bytes((PAPER / name).read_bytes())
    assert len(load_pairs(tmp_path)) == 23
    info = json.loads((tmp_path / "resnet18-bs32/run.json").read_text())
    info["dataset"]["fingerprint"] = "of other photos"
    (tmp_path / "resnet18-bs32/run.json").write_text(json.dumps(info))
    assert load_pairs(tmp_path) is None


def test_every_number_of_a_table_stands_in_its_csv_file(rebuilt):
    tables = list((rebuilt / "tables").glob("*.tex"))
    assert sum(len(decimals(table.read_text())) for table in tables) > 200
    missing = {table.stem: without_source(decimals(table.read_text()), csv(table)) for table in tables}
    assert not any(missing.values()), missing


def test_every_number_of_the_text_stands_in_a_csv_file_or_a_run_json(rebuilt):
    text = (rebuilt / "report.tex").read_text().split(r"\begin{abstract}")[1]
    text = re.sub(r"\\section\{Method\}.*?\\section\{Experiments\}", "", text, flags=re.S)  # constants of the code
    # the tables of epochs hold so many numbers that nearly any would be found
    sessions = [path.parent for path in PAPER.rglob("run.json")]
    tables = [
        path for path in (rebuilt / "tables").glob("*.tex") if path.stem not in {each.name for each in sessions}
    ]
    settings = [json.dumps(json.loads((each / "run.json").read_text())["settings"]) for each in sessions]
    assert len(decimals(text)) > 50
    assert without_source(decimals(text), *map(csv, tables), *settings) == set()


def test_a_number_without_a_source_is_noticed():
    assert without_source({"0.769", "0.77", "0.767"}, "0.7686,5") == {"0.767"}
    assert without_source({"1.2e-05"}, "p 1.2e-05") == set()
