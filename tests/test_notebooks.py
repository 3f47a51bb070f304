"""The notebooks as files, and how they are executed; tests/test_whole.py executes every one of them."""

import json
import re
import sys

import nbformat
import papermill
import pytest

from flowerlib.errors import UserError
from flowerlib.experiment import Experiment
from flowerlib.files import NOTEBOOKS
from flowerlib.notebooks import execute_notebook
from flowerlib.sessions import SESSION_NOTEBOOK

ALL = sorted(NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
def test_notebooks_are_thin_and_committed_without_outputs(path):
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert not any(re.search(r"^\s*(def|class) ", cell.source, re.M) for cell in code)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1


def test_the_session_notebooks_parameters_are_the_settings_at_their_defaults():
    found = {name: eval(each["default"]) for name, each in papermill.inspect_notebook(SESSION_NOTEBOOK).items()}
    assert found == dict(Experiment()) | {"session": "resnet18-bs32", "run_dir": None}


@pytest.fixture
def notebook(tmp_path):
    """A notebook that tells where it runs and draws a figure, in a folder whose name papermill would format."""
    folder = tmp_path / "{draft}"
    folder.mkdir()
    cells = [
        nbformat.v4.new_code_cell("number = 1", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("import sys, matplotlib.pyplot as plt\nprint(sys.executable, number)"),
        nbformat.v4.new_code_cell("plt.rcParams['lines.linewidth'], plt.plot([0, 1])"),
    ]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / "notebook.ipynb")
    return folder / "notebook.ipynb"


def run(notebook):
    out = notebook.with_name("executed.ipynb")
    execute_notebook(notebook, out, {"number": 2}, log=notebook.with_name("log"))
    return nbformat.read(out, as_version=4)


def test_a_notebook_runs_in_this_python_whatever_the_users_settings_are(notebook, tmp_path, monkeypatch):
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    argv = ["/bin/false", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "mine", "language": "python"}))
    profile = tmp_path / "ipython" / "profile_default" / "startup"
    profile.mkdir(parents=True)
    for startup in (profile / "00.py", tmp_path / "startup.py"):
        startup.write_text("raise SystemExit")
    (tmp_path / "matplotlibrc").write_text("backend: nowhere\nlines.linewidth: 9\n")
    for name, value in {
        "JUPYTER_PATH": tmp_path / "jupyter",
        "IPYTHONDIR": tmp_path / "ipython",
        "PYTHONSTARTUP": tmp_path / "startup.py",
        "MATPLOTLIBRC": tmp_path / "matplotlibrc",
        "MPLBACKEND": "module://nowhere",
        "PYTHONWARNINGS": "error",
        "HOME": "/nowhere",
    }.items():
        monkeypatch.setenv(name, str(value))
    told, drawn = run(notebook).cells[-2:]
    assert told.outputs[0].text.split() == [sys.executable, "2"]
    assert "1.5" in drawn.outputs[0].data["text/plain"]
    assert "image/png" in drawn.outputs[1].data


def test_a_kernel_that_does_not_start_is_said_with_its_last_line(notebook, tmp_path, monkeypatch):
    (tmp_path / "ipykernel_launcher.py").write_text("raise SystemExit('no room for a kernel')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError, match=r"did not start.*no room for a kernel"):
        run(notebook)


def test_what_only_some_runs_can_say_is_tagged_and_silent_elsewhere():
    cells = nbformat.read(NOTEBOOKS / "report.ipynb", as_version=4).cells
    for tag in ("paper", "reference"):
        tagged = [cell for cell in cells if tag in cell.metadata.get("tags", [])]
        assert tagged
        assert all(cell.source.startswith(f"if {tag}:\n") for cell in tagged)
    assert not any(cell.source.startswith("if paper") and "tags" not in cell.metadata for cell in cells)
