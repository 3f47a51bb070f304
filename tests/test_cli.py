"""The command line: what surrounds the verbs."""

import os
import subprocess
import sys

import pytest

from flowerlib import cli
from flowerlib.allocator import ALLOCATOR_ENVIRONMENT
from flowerlib.errors import UserError


def flowerlib(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "flowerlib", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def test_a_reader_that_leaves_early_is_no_error(photo_folder):
    for number in range(5000):  # more than a pipe holds
        (photo_folder / "aster" / f"{number}.txt").touch()
    process = flowerlib("data", "--data", str(photo_folder))
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


def test_an_ascii_terminal_gets_what_it_can_print(photo_folder):
    (photo_folder / "aster").rename(photo_folder / "蒲公英")
    process = flowerlib("data", "--data", str(photo_folder), env=os.environ | {"PYTHONIOENCODING": "ascii"})
    said, errors = process.communicate()
    assert (process.returncode, errors) == (0, b"")
    assert b"???" in said


def test_an_installation_away_from_its_notebooks_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cli, "NOTEBOOKS", tmp_path / "notebooks")
    assert cli.main(["report"]) == 1
    assert "pip install -e ." in capsys.readouterr().err


@pytest.mark.parametrize(("verb", "said"), [("report", "report is untouched"), ("run", "Finished epochs are kept")])
def test_an_interrupt_speaks_of_its_verb(monkeypatch, capsys, verb, said):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, f"_{verb}", interrupt)
    assert cli.main([verb]) == 130
    assert said in capsys.readouterr().err


def test_a_report_on_a_single_session_names_the_folder_to_give(tmp_path, capsys):
    (tmp_path / "session").mkdir()
    (tmp_path / "session" / "run.json").write_text("{}")
    assert cli.main(["report", "--runs", str(tmp_path / "session")]) == 1
    assert f"--runs {tmp_path}" in capsys.readouterr().err


def test_two_reports_into_one_folder_don_t_mix(tmp_path, monkeypatch):
    from flowerlib.files import locked
    from flowerlib.report.build import make_report

    monkeypatch.setattr("flowerlib.files.PATIENCE", 0)
    monkeypatch.setattr("flowerlib.report.build.find_sessions", lambda runs: runs)
    with locked(tmp_path / ".lock", tmp_path), pytest.raises(UserError, match="Another process is at work"):
        make_report(tmp_path, tmp_path, "auto")


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_predict_begins_anew_once_with_the_allocators_settings(monkeypatch, capsys):
    begun, words = [], ["-P", "flowerlib", "predict", "nowhere.pt", "nowhere.jpg"]
    monkeypatch.setattr(os, "execve", lambda *given: begun.append(given))
    monkeypatch.setattr(sys, "orig_argv", ["python3", *words])
    monkeypatch.setattr(sys, "argv", words[1:])
    for name in ALLOCATOR_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    assert cli.main() == 1  # here it goes on, as nothing has taken its place
    ((_, command, environment),) = begun
    assert command == [sys.executable, *words]
    for name, value in ALLOCATOR_ENVIRONMENT.items():
        monkeypatch.setenv(name, environment[name])
        assert environment[name] == value
    assert cli.main() == cli.main(sys.argv[1:]) == 1
    assert len(begun) == 1
    assert "nowhere.pt can't be read" in capsys.readouterr().err
