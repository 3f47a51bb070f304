"""The committed reference runs: their report comes out of their tables again, and its numbers stand in CSV files."""

import ast
import json
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from flowerlib.cli import main
from flowerlib.files import REPORT
from flowerlib.report.build import REPORT_NOTEBOOK
from flowerlib.report.sources import load_pairs

PAPER = REPORT / "results" / "paper"


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory):
    """The report of the reference runs, made from the committed tables alone."""
    out = tmp_path_factory.mktemp("report")
    assert main(["report", "--runs", str(PAPER), "--out", str(out), "--engine", "typst"]) == 0
    return out


def decimals(text: str) -> set[str]:
    """Numbers with a decimal point, as printed (.932), but for versions, such as 2.15.0, and LaTeX's widths."""
    text = re.sub(r"p\{[\d.]+\\linewidth\}|width=[\d.]+", "", text)
    return set(re.findall(r"(?<![\w.])\d*\.\d+(?:e-?\d+)?(?![\d.])", text))


def without_source(shown: set[str], *sources: str) -> set[str]:
    """Those of the numbers that are no rounded number of the sources."""
    written = [abs(float(number)) for source in sources for number in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", source)]
    exact = {number for source in sources for number in decimals(source)}

    def rounded(number: str) -> set[str]:
        places = len(number.partition(".")[2])
        return {f"{each:.{places}f}".removeprefix("0") for each in written}

    return {number for number in shown - exact if number not in rounded(number)}


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


# keys, networks' names, the letters of claims, the paper's batch sizes and the level of confidence
NAMES = r"\\(?:cite[tp]?|ref)\{[^}]*\}|ResNet-\d+|\b[a-j][12]\b|\b(?:32|64)\b|95 %"


def test_no_number_is_typed_into_a_sentence():
    sentences = []
    for cell in nbformat.read(REPORT_NOTEBOOK, as_version=4).cells:
        calls = ast.walk(ast.parse(cell.source)) if cell.cell_type == "code" else []
        for call in calls:
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Prose":
                sentences += [
                    part.value
                    for node in ast.walk(call)
                    if isinstance(node, ast.JoinedStr | ast.Constant)
                    for part in (node.values if isinstance(node, ast.JoinedStr) else [node])
                    if isinstance(part, ast.Constant) and isinstance(part.value, str) and " " in part.value.strip()
                ]
    assert len(sentences) > 60
    for sentence in sentences:
        assert not re.search(r"\d", re.sub(NAMES, "", sentence)), sentence


def test_every_number_of_the_text_stands_in_a_csv_file_or_a_run_json(rebuilt):
    text = (rebuilt / "report.tex").read_text().split(r"\begin{abstract}")[1]
    text = re.sub(r"\\begin\{table\}.*?\\end\{table\}", "", text, flags=re.DOTALL)
    # the tables of epochs hold so many numbers that nearly any would be found
    tables = [path for path in (rebuilt / "tables").glob("*.csv") if not path.stem.startswith("session-")]
    assert len(decimals(text)) > 30
    assert without_source(decimals(text), *map(csv, tables)) == set()


def test_a_number_without_a_source_is_noticed():
    assert without_source({".769", ".77", ".767"}, "0.7686,5") == {".767"}
