"""The house: which room may use which, and that README and docs speak of commands that exist."""

import ast
import re
import shlex
import subprocess
import sys

import pytest

from flowerlib.cli import _parser
from flowerlib.files import PROJECT

PACKAGE = PROJECT / "flowerlib"
TEXTS = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
WINGS = ("data", "training", "report", "bench")
MAY_USE = {"data": set(), "training": {"data"}, "report": {"data"}, "bench": {"data", "training"}}


def wings_used(file):
    """The wings that a module imports, as package names with the module behind: data.photos."""
    nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
    return {node.module.removeprefix("flowerlib.") for node in nodes if node.module.startswith("flowerlib.")}


def test_arrows_point_one_way():
    for file in PACKAGE.glob("*/**/*.py"):
        wing = file.relative_to(PACKAGE).parts[0]
        others = {each for each in wings_used(file) if each.split(".")[0] in WINGS and not each.startswith(wing)}
        allowed = {each for each in others if each.split(".")[0] in MAY_USE[wing]}
        if file.name == "gallery.py":
            allowed.add("training.trained")  # where a network looks
        assert others <= allowed, file


def test_reading_runs_and_reporting_them_import_no_pytorch():
    code = (
        "import sys, flowerlib.report.build, flowerlib.report.sources, flowerlib.runs; print('torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_the_tests_that_the_docs_name_exist():
    tests = "\n".join(path.read_text() for path in (PROJECT / "tests").rglob("test_*.py"))
    named, of_tests = 0, False
    for line in (PROJECT / "docs/faults.md").read_text().splitlines():
        of_tests = line.startswith("|") and (of_tests or line.endswith("| Test |"))
        last = line.rstrip(" |").rpartition("| ")[2]
        for name in re.findall(r"`([^`]+)`", last) if of_tests else []:
            file, _, test = name.rpartition(": ")
            if not test.startswith("test_") and "/" not in test:
                named += 1
                assert re.search(rf"def test_\w*{re.escape(test.rstrip('…'))}", tests), name
            for each in {file, test if not file else ""} - {""}:
                if each.startswith("test_") or "/" in each:
                    assert (PROJECT / "tests" / f"{each}.py").exists(), name
    assert named > 30


@pytest.fixture(scope="module")
def make_targets():
    listed = subprocess.check_output(["make", "--no-print-directory"], cwd=PROJECT, text=True)
    return {line.split()[0]: line for line in listed.splitlines()}


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.name)
def test_commands_in_the_docs_exist(text, make_targets):
    content = text.read_text()
    verbs = _parser()._subparsers._group_actions[0].choices
    (variables,) = re.findall(r"^VARIABLES := (.*)$", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    for command in re.findall(r"(?:^|`)(make(?: [^`\n#]*)?)", content, re.MULTILINE):
        words = shlex.split(command)[1:]
        targets = [word for word in words if re.fullmatch(r"[a-z-]+", word)]
        assert set(targets) <= make_targets.keys(), command
        assert {word.split("=")[0] for word in words if re.match("[A-Z]+=", word)} <= set(variables.split()), command
    for command in re.findall(r"\.venv/bin/flowerlib ([^`\n#]*)", content):
        verb, *words = shlex.split(command)
        if verb.startswith("-"):
            continue
        known = verbs[verb]._option_string_actions
        assert {word.split("=")[0] for word in words if word.startswith("--")} <= known.keys(), command


def test_a_misspelt_make_variable_is_refused():
    done = subprocess.run(["make", "-n", "report", "RUNZ=x"], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "There is no variable RUNZ" in done.stderr
    assert (
        subprocess.run(["make", "-n", "report", "RUNS=a b", "OUT=x"], cwd=PROJECT, capture_output=True).returncode
        == 0
    )
