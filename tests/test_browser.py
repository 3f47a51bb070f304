"""The notebooks in JupyterLab and a real browser, where playwright and Chromium are installed."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys

import nbformat
import pandas as pd
import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from flowerlib.files import NOTEBOOKS, PROJECT
from flowerlib.runs import read_run

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on the path")

PATIENCE = 240  # seconds: other programs may run here too
EPOCHS = 12


@pytest.fixture
def lab(photo_folder, tmp_path):
    """The address of a JupyterLab that starts as in `make lab`, on copies of the notebooks with small parameters."""
    small = {"data": str(photo_folder), "image_size": 40}
    session = {"weights": "none", "run_dir": str(tmp_path / "run"), "epochs": EPOCHS, "repeats": 1, "device": "cpu"}
    copy_with(tmp_path / "lab" / "explore.ipynb", small)
    copy_with(tmp_path / "lab" / "session.ipynb", small | session)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = subprocess.check_output(
        ["make", "--no-print-directory", "-n", "lab"], cwd=PROJECT, text=True
    ).splitlines()[-1]
    options = shlex.split(made)[2:-1]
    options += [f"--port={port}", "--no-browser", "--allow-root", "--IdentityProvider.token="]
    options += ["--LabApp.expose_app_in_browser=True"]
    ours = {name: str(tmp_path / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")}
    command = [sys.executable, "-m", "jupyterlab", *options, str(tmp_path / "lab")]
    with (tmp_path / "log").open("w") as log:
        environment = os.environ | ours | {"PYTHONPATH": str(PROJECT), "JUPYTERLAB_SETTINGS_DIR": str(tmp_path)}
        server = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}/api")
        yield f"http://127.0.0.1:{port}/lab"
    finally:
        server.terminate()
        server.wait(PATIENCE)


@pytest.fixture
def page():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        yield page
        browser.close()


def copy_with(path, parameters):
    notebook = nbformat.read(NOTEBOOKS / path.name, as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    for name, value in parameters.items():
        cell.source, found = re.subn(rf"^{name} = .*$", f"{name} = {value!r}", cell.source, flags=re.M)
        assert found == 1
    path.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, path)


def wait_for(address):
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=Retry(total=PATIENCE, backoff_factor=0.1, backoff_max=1)))
        session.get(address)


def open_notebook(page, lab, name):
    page.goto(f"{lab}/tree/{name}")
    panel = f"[...(window.jupyterapp?.shell.widgets('main') ?? [])].find(widget => widget.context?.path == '{name}')"
    page.wait_for_function(f"() => {panel}?.sessionContext?.session?.kernel?.status == 'idle'", polling=100)
    page.evaluate(f"jupyterapp.shell.activateById({panel}.id)")


def run_all(page):
    """Run all cells, when the kernel answers: after an interruption it drops what it was sent, for a moment."""
    page.evaluate(
        """async () => {
            await jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestKernelInfo()
            window.ran = false
            jupyterapp.commands.execute('notebook:run-all-cells').finally(() => { window.ran = true })
        }"""
    )


def wait_until(page, condition):
    """Until something is true of ``cells``, those of the open notebook as in its file."""
    cells = "jupyterapp.shell.currentWidget.content.model.toJSON().cells"
    page.wait_for_function(f"() => {{ const cells = {cells}; return {condition} }}", polling=100)
    return nbformat.from_dict(page.evaluate(cells))


def wait_for_the_end(page):
    """Until all cells have run, or one has failed; the outputs."""
    cells = wait_until(page, "window.ran && cells")
    return [out for cell in cells for out in cell.get("outputs", [])]


def pictures(outputs):
    errors = [out for out in outputs if out.output_type == "error"]
    assert not errors, errors
    return sum("image/png" in out.get("data", {}) for out in outputs)


def test_a_student_looks_trains_interrupts_and_goes_on(lab, page, tmp_path):
    open_notebook(page, lab, "explore.ipynb")
    run_all(page)
    assert pictures(wait_for_the_end(page)) == 7
    assert page.get_by_text("get notified about official Jupyter news").count() == 0

    open_notebook(page, lab, "session.ipynb")
    run_all(page)
    wait_until(page, f"JSON.stringify(cells).includes('epoch  0 of {EPOCHS}: train loss')")
    page.evaluate("void jupyterapp.commands.execute('notebook:interrupt-kernel')")
    wait_until(page, "JSON.stringify(cells).includes('KeyboardInterrupt')")
    before = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert 0 < len(before) < EPOCHS

    run_all(page)
    assert pictures(wait_for_the_end(page)) == 4
    after = read_run(tmp_path / "run").metrics
    assert len(after) == EPOCHS
    assert after.head(len(before)).equals(before)  # with the same seconds: they were not trained again
