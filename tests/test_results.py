"""The committed reference runs: their report comes out of their tables again, and its numbers stand in CSV files."""

import re

import pandas as pd
import pytest

from flowerlib.cli import main
from flowerlib.files import REPORT

PAPER = REPORT / "results" / "paper"


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory):
    """The report of the reference runs, made from the committed tables alone."""
    out = tmp_path_factory.mktemp("report")
    assert main(["report", "--runs", str(PAPER), "--out", str(out), "--engine", "typst"]) == 0
    return out


def test_the_reference_report_comes_out_of_its_tables_again(rebuilt):
    committed, ours = (
        {path.name: pd.read_csv(path) for path in (folder / "tables").glob("*.csv")} for folder in (PAPER, rebuilt)
    )
    assert committed.keys() == ours.keys()
    for name, table in committed.items():
        pd.testing.assert_frame_equal(ours[name], table, obj=name)


def test_every_number_of_the_reference_report_stands_in_a_csv_file(rebuilt):
    tex = (rebuilt / "report.tex").read_text()
    # the method gives settings, which are run.json's
    said = re.sub(
        r"\\section\{Method\}.*?\\section\{Experiments\}", "", tex.split(r"\begin{abstract}")[1], flags=re.S
    )
    said += "".join(path.read_text() for path in (rebuilt / "tables").glob("*.tex"))
    said = re.sub(r"p\{[\d.]+\\linewidth\}|width=[\d.]+", "", said)
    decimals = set(re.findall(r"(?<![\d.])\d+\.\d+(?![\d.])", said))  # but for versions, such as 2.15.0
    assert len(decimals) > 100

    written = "\n".join(path.read_text() for path in (PAPER / "tables").glob("*.csv"))
    numbers = [float(number) for number in re.findall(r"\d+\.?\d*(?:e-?\d+)?", written)]
    known = {f"{number:.{places}f}" for number in numbers for places in range(1, 5)}
    assert decimals <= known
