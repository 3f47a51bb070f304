import re
import shutil
import subprocess

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from pypdf import PdfReader

from flowerlib.errors import UserError
from flowerlib.files import PROJECT
from flowerlib.report.display import slug
from flowerlib.report.pdf import TEX_ENGINES, build_report

TEX = [engine for engine in TEX_ENGINES if shutil.which(engine)]
needs_tex = pytest.mark.skipif(not TEX, reason=f"no TeX on the PATH (none of {', '.join(TEX_ENGINES)})")
ENGINES = ["typst", pytest.param("tex", marks=needs_tex)]

ODD = "my_roses & 50 % #1"
TABLES = {f"tables/{name}.{kind}" for name in ("epochs", "sessions") for kind in ("tex", "csv")}
FLOATS = {f"figures/{slug(ODD)}.pdf", *TABLES}


def tagged(cell, *tags):
    cell.metadata["tags"] = list(tags)
    return cell


CELLS = [
    tagged(new_code_cell("""
import sys
import pandas as pd
import matplotlib.pyplot as plt
from flowerlib.report.display import Figure, Prose, TitlePage, escaped
from flowerlib.report.tables import epoch_table, frame_table
ODD = "my_roses & 50 % #1"
metrics = pd.DataFrame({"epoch": range(12), "val_acc": [0.301 + 0.01 * epoch for epoch in range(12)]})
Prose("HIDDEN")"""), "hide"),
    new_code_cell("""TitlePage("Flowers & photographs", ["Ada Student\\nada_s@example.org", "Max Tutor"],
          "March 2025", "Synthetic photos: a demonstration.")"""),
    tagged(
        new_code_cell(r"Prose(rf'Abstract with **{0.9321:.3f}** of photos. Table \ref{{tab:epochs}}.')"), "abstract"
    ),
    tagged(new_markdown_cell("Data augmentation, transfer learning"), "keywords"),
    new_markdown_cell(r"""# Introduction

As \cite{he-assignment} and LeCun \cite{lecun1998}. Section \ref{sec:results} has Table \ref{tab:epochs}.

| k | v |
|---|---|
| 71 | 82 |"""),
    new_markdown_cell("# Results {#sec:results}\n\n## Sessions"),
    new_code_cell("""print("STDOUT"); print("STDERR", file=sys.stderr)
Prose(rf"The session {escaped(ODD)} is in Figure \\ref{{fig:{Figure(plt.figure(), ODD, '').name}}}.")"""),
    new_code_cell("""
titles = {"val_acc": "Validation accuracy"}
display(epoch_table(metrics, titles, "epochs", f"Session {escaped(ODD)}, 5 %."), Prose("Two outputs."))"""),
    new_code_cell("""
sessions = pd.DataFrame({"Session": [ODD, "[x]", "long_name_" * 12],
                         "Best accuracy of all the epochs": [0.811, 0.822, 0.833],
                         "Claim": ["7 of the claims that stand in the paper hold"] * 3})
frame_table(sessions, "sessions", "The sessions.")"""),
    new_code_cell("""_, axes = plt.subplots(figsize=(3, 2)); axes.plot([1, 2])
Figure(axes, ODD, f"Curves of {escaped(ODD)}: $x_1$.")"""),
]  # fmt: skip


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    path = tmp_path_factory.mktemp("notebook") / "report.ipynb"
    executed = new_notebook(cells=CELLS)
    NotebookClient(executed, resources={"metadata": {"path": str(PROJECT)}}).execute()
    nbformat.write(executed, path)
    return path


@pytest.fixture(scope="module")
def built(notebook, tmp_path_factory):
    """Build by an engine, once a module; returns the folder and the PDF's text."""
    known = {}

    def build(engine):
        if engine not in known:
            out = tmp_path_factory.mktemp(engine)
            known[engine] = out, text_of(build_report(notebook, out, engine))
        return known[engine]

    return build


def text_of(pdf):
    text = " ".join(page.extract_text() for page in PdfReader(pdf).pages)
    return re.sub(r"\s+", " ", text.replace("\u200b", "").replace("’", "'"))


def written(folder, *cells):
    path = folder / "small.ipynb"
    nbformat.write(new_notebook(cells=list(cells)), path)
    return path


def files(out):
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "words",
    [
        "Flowers & photographs", "Ada Student", "ada_s@example.org", "Max Tutor", "March 2025",
        "Synthetic photos: a demonstration.", "Abstract with 0.932 of photos.",
        "Keywords: Data augmentation, transfer learning",
        "1 Introduction", "2 Results", "2.1 Sessions", "As [1] and LeCun [2]. Section 2 has Table 1.",
        "The session my_roses & 50 % #1 is in Figure 1.",
        "Table 1: Session my_roses & 50 % #1, 5 %.", "Two outputs.", "Table 2: The sessions.",
        "Figure 1: Curves of my_roses & 50 % #1",
        "Epoch 10 11 Validation accuracy .401 .411", "0.811 7 of the", "[x] 0.822 7 of the", "k v 71 82",
        "References", "School of Electronics and Communication Engineering, Sun Yat-sen", "Gradient-",
    ],
)  # fmt: skip
def test_the_pdf_says_it(built, engine, words):
    assert words in built(engine)[1]


@pytest.mark.parametrize("engine", ENGINES)
def test_neither_code_nor_streams_nor_hidden_cells_are_printed(built, engine):
    assert not re.search(r"HIDDEN|STDOUT|STDERR|import|frame_table|\?\?|\[\?\]", built(engine)[1])


@pytest.mark.parametrize("engine", ENGINES)
def test_floats_come_in_the_notebooks_order(built, engine):
    text = built(engine)[1]
    assert text.index("Table 1:") < text.index("Table 2:") < text.index("Figure 1:") < text.index("References")


@pytest.mark.parametrize("engine", ENGINES)
def test_the_folder_holds_what_a_document_needs_and_no_more(built, engine):
    assert files(built(engine)[0]) == FLOATS | {"report.pdf", "report.html", "report.tex", "references.bib"}


def test_the_html_is_one_file_with_numbered_links_and_everything_in_it(built):
    page = (built("typst")[0] / "report.html").read_text("utf-8")
    loaded = re.findall(r"(?:src|href)=\"([^\"]+)\"", page)
    assert all(each.startswith(("data:", "#", "https://doi.org")) for each in loaded)
    assert sum(each.startswith("data:image/svg+xml") for each in loaded) == 1
    assert re.search(r'href="#tab:epochs"[^>]*>1</a>', page)
    assert re.search(r'of photos. Table (?:<span>)?<a href="#tab:epochs"[^>]*>1</a>', page)  # in the abstract, too
    assert re.search(r'href="#sec:results"[^>]*>2</a>', page)
    assert re.search(r'href="#ref-lecun1998"[^>]*>2</a>', page)
    assert f'alt="Curves of {ODD.replace("&", "&amp;")}' in page
    assert "<math" in page
    for part in ("Synthetic photos: a demonstration.", "Abstract with <strong>", "Data augmentation, transfer"):
        assert page.index(part) < page.index("Introduction")
    assert not re.search(r"HIDDEN|STDOUT|STDERR|\\(?:ref|cite|begin)", page)


def test_typst_makes_the_same_file_each_time(built, notebook, tmp_path):
    assert build_report(notebook, tmp_path, "typst").read_bytes() == (built("typst")[0] / "report.pdf").read_bytes()


@needs_tex
@pytest.mark.parametrize("engine", TEX)
def test_report_tex_compiles_where_it_lies(built, tmp_path, engine):
    folder = shutil.copytree(built("typst")[0], tmp_path / "copy")
    subprocess.run([engine, "-interaction=batchmode", "-halt-on-error", "report.tex"], cwd=folder, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip


@needs_tex
def test_tables_and_figures_serve_in_someone_elses_document(built, tmp_path):
    folder = shutil.copytree(built("typst")[0], tmp_path / "copy")
    (folder / "mine.tex").write_text(
        r"\documentclass{article}\usepackage{array,booktabs,graphicx}\begin{document}\input{tables/epochs.tex}"
        rf"\input{{tables/sessions.tex}}\includegraphics{{figures/{slug(ODD)}.pdf}}\end{{document}}"
    )
    subprocess.run([TEX[0], "-interaction=batchmode", "-halt-on-error", "mine.tex"], cwd=folder, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    assert ".411" in text_of(folder / "mine.pdf")


def test_a_rebuild_removes_its_own_stale_files_and_no_others(notebook, tmp_path):
    build_report(notebook, tmp_path, "typst")
    (tmp_path / "figures" / "mine.pdf").write_bytes(b"mine")
    build_report(written(tmp_path, new_markdown_cell("# Only words")), tmp_path, "typst")
    assert files(tmp_path) == {
        "figures/mine.pdf",
        "report.pdf",
        "report.html",
        "report.tex",
        "references.bib",
        "small.ipynb",
    }


def test_a_failed_build_leaves_the_earlier_one(notebook, tmp_path):
    build_report(notebook, tmp_path, "typst")
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    with pytest.raises(UserError):
        build_report(written(tmp_path.parent, new_markdown_cell(r"\ref{tab:none}")), tmp_path, "typst")
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


@pytest.fixture
def broken_tex(tmp_path, monkeypatch):
    """A PATH on which the only TeX fails."""
    program = tmp_path / "bin" / "xelatex"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "! Font not found.\\nmore\\nl.12 x\\n" > report.log\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))


@pytest.mark.usefixtures("broken_tex")
def test_a_tex_that_fails_leaves_the_work_to_typst(notebook, tmp_path, capsys):
    out = tmp_path / "out"
    assert ".411" in text_of(build_report(notebook, out))
    said = capsys.readouterr().err
    assert "Font not found. l.12 x" in said
    assert str(out / "xelatex.log") in said
    assert "Font not found" in (out / "xelatex.log").read_text()


@pytest.mark.usefixtures("broken_tex")
def test_a_tex_that_fails_is_an_error_if_tex_was_asked_for(notebook, tmp_path):
    with pytest.raises(UserError, match=r"xelatex: Font not found\. l\.12 x.*xelatex\.log"):
        build_report(notebook, tmp_path / "out", "tex")


def test_no_tex_is_an_error_only_if_it_was_asked_for(notebook, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="No TeX is installed"):
        build_report(notebook, tmp_path, "tex")
    assert build_report(notebook, tmp_path, "auto").exists()
    assert capsys.readouterr().err == ""


@needs_tex
def test_a_character_that_tex_would_drop_is_not_dropped_in_silence(tmp_path):
    with pytest.raises(UserError, match=r"花|Unicode character"):
        build_report(written(tmp_path, new_markdown_cell("Flowers are 花.")), tmp_path / "out", "tex")


def test_a_caption_stays_with_a_table_that_may_break(tmp_path):
    cells = []
    for number in range(20):
        rows = "".join(rf"row{number}-{row} & b\\" for row in range(12))
        table = rf"\begin{{tabular}}{{ll}}{rows}\end{{tabular}}"
        caption = rf"\caption{{caption{number}}}\label{{tab:t{number}}}"
        cells.append(new_markdown_cell(rf"\begin{{table}}[H]{caption}{table}\end{{table}}" + "\n\nA line." * number))
    pdf = build_report(written(tmp_path, *cells), tmp_path / "out", "typst")
    for text in (page.extract_text() for page in PdfReader(pdf).pages):
        for number in re.findall(r"caption(\d+)", text):
            assert f"row{number}-0" in text


@pytest.mark.parametrize(
    "latex",
    [
        r"\begin{table}[H]\caption{C}\label{tab:gone}\resizebox{1cm}{!}{\begin{tabular}{l}a\\b\end{tabular}}\end{table}",
        r"\begin{figure}[H]\resizebox{1cm}{!}{\includegraphics{x.pdf}}\caption{C}\label{fig:gone}\end{figure}",
    ],
)
def test_a_float_that_pandoc_drops_is_an_error(tmp_path, latex):
    with pytest.raises(UserError, match="would leave out a"):
        build_report(written(tmp_path, new_markdown_cell(latex)), tmp_path / "out", "typst")
    assert not (tmp_path / "out" / "report.pdf").exists()


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (new_markdown_cell(r"\cite{lecun1989}"), "cites 'lecun1989'.*Did you mean 'lecun1998'"),
        (new_markdown_cell(r"\ref{sec:none}"), "refers to 'sec:none'"),
        (new_code_cell("x"), "has not been executed"),
        (new_code_cell("x", execution_count=1, outputs=[new_output("error", ename="KeyError", evalue="'x'")]),
         "Cell 1 .* failed .KeyError"),
    ],
)  # fmt: skip
def test_a_notebook_that_cannot_be_printed_says_why(tmp_path, cell, message):
    with pytest.raises(UserError, match=message):
        build_report(written(tmp_path, cell), tmp_path / "out", "typst")


def test_two_floats_of_one_name_are_refused(notebook, tmp_path):
    twice = nbformat.read(notebook, as_version=4)
    twice.cells.append(NotebookNode({**twice.cells[-1], "id": "again"}))
    with pytest.raises(UserError, match="Two figures"):
        build_report(written(tmp_path, *twice.cells), tmp_path / "out", "typst")


def test_a_picture_without_a_caption_is_announced(tmp_path, capsys):
    picture = new_output("display_data", {"image/png": "aaaa", "text/plain": "<Figure>"})
    notebook = written(tmp_path, new_code_cell("x", execution_count=1, outputs=[picture]))
    build_report(notebook, tmp_path / "out", "typst")
    assert "Cell 1" in capsys.readouterr().err


def test_a_file_that_is_no_notebook_is_refused(tmp_path):
    (tmp_path / "x.ipynb").write_text("no json")
    with pytest.raises(UserError, match=r"x\.ipynb can't be read as a notebook"):
        build_report(tmp_path / "x.ipynb", tmp_path, "typst")


def test_a_report_tex_of_the_users_own_is_left_alone(notebook, tmp_path):
    (tmp_path / "report.tex").write_text(r"\includegraphics{figures/mine.pdf}")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "mine.pdf").write_text("mine")
    with pytest.raises(UserError, match="is left as it is"):
        build_report(notebook, tmp_path, "typst")
    assert (tmp_path / "figures" / "mine.pdf").read_text() == "mine"
    assert not (tmp_path / "report.pdf").exists()


def test_characters_without_a_font_are_named(tmp_path, capsys):
    build_report(written(tmp_path, new_markdown_cell("Petals of \U00012000 and \u0378.")), tmp_path, "typst")
    assert "the characters \U00012000 \u0378:" in capsys.readouterr().err
