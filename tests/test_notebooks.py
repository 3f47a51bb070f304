"""The notebooks as files; tests/test_whole.py executes every one of them."""

import re

import nbformat
import papermill
import pytest

from flowerlib.experiment import Experiment
from flowerlib.files import NOTEBOOKS
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
