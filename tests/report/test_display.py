import base64
import json
import re

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from flowerlib.report.display import Figure, Prose, Table, TitlePage, escaped, latex_text, resolve_references, slug

NUMBERS = pd.DataFrame({"n": [1 / 3]})
ODD = r"my_roses & 50 % #1 {x} [y] *z* $a$ ~^ \cmd <b> `c` a--b"


@pytest.fixture
def axes():
    _, axes = plt.subplots(figsize=(2, 1))
    axes.plot([0, 1], [0, 1])
    return axes


def shown(thing):
    data, metadata = thing._repr_mimebundle_()
    return data, metadata["flowerlib"]


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("50 % & #1_$", r"50 \% \& \#1\_\$"),
        (r"\cmd{~^}", r"\textbackslash{}cmd\{\textasciitilde{}\textasciicircum{}\}"),
        ("[1] *", "{[}1{]} {*}"),
        ("a--b\n\n c", "a-{}-b c"),
        ("a---b", "a-{}-{}-b"),
    ],
)
def test_latex_text_prints_literally(text, latex):
    assert latex_text(text) == latex


def test_plain_makes_any_name_literal_in_a_caption():
    table = Table("", "", NUMBERS, "t", f"Session {escaped(ODD)}.")
    assert rf"\caption{{Session {latex_text(ODD)}.}}" in table.latex
    assert "&lt;b&gt;" in shown(table)[0]["text/html"]


def test_captions_keep_mathematics_and_references_and_escape_the_rest():
    table = Table("", "", NUMBERS, "t", r"5 % of $x_1$ & y_z, see \ref{fig:a_b} and \cite{he,pan}; $5 and $6")
    assert r"5 \% of $x_1$ \& y\_z, see \ref{fig:a_b} and \cite{he,pan}; \$5 and \$6" in table.latex
    page = shown(table)[0]["text/html"]
    assert r'5 % of $x_1$ &amp; y_z, see <span class="mathjax_ignore">\ref{fig:a_b}</span> and \cite{he,pan}' in page
    assert "; $5 and $6" in page


def test_slug_keeps_good_names_and_never_lets_two_names_meet():
    assert slug("resnet18-bs32_a.1") == "resnet18-bs32_a.1"
    odd = {slug(name) for name in ["my roses", "my & roses", "玫瑰", "郁金香", "../up", "my-roses"]}
    assert len(odd) == 6
    assert all(name.replace("-", "").replace(".", "").isalnum() and "/" not in name for name in odd)


def test_figure_holds_its_files_and_is_closed(axes):
    data, facts = shown(Figure(axes, "curves", "Curves", width=0.5))
    assert (facts["kind"], facts["name"]) == ("figure", "curves")
    assert "<svg" in facts["svg"]
    assert base64.b64decode(data["application/pdf"]).startswith(b"%PDF")
    assert r"\includegraphics[width=0.5\linewidth]{figures/curves.pdf}" in data["text/latex"]
    assert r"\label{fig:curves}" in data["text/latex"]
    assert "data:image/svg+xml;base64," in data["text/html"]
    assert not plt.fignum_exists(axes.figure.number)


def test_figure_is_the_same_file_each_time(axes):
    axes.figure.set_layout_engine("constrained")
    assert Figure(axes, "a", "").pdf == Figure(axes.figure, "a", "").pdf


def test_table_reads_its_file_and_carries_it():
    data, facts = shown(Table("TABULAR", "<table></table>", NUMBERS, "my roses", "Caption"))
    assert facts == {"kind": "table", "name": slug("my roses"), "tabular": "TABULAR", "csv": f"n\n{1 / 3}\n"}
    assert rf"\input{{tables/{slug('my roses')}.tex}}" in data["text/latex"]
    assert data["text/latex"].index(r"\caption") < data["text/latex"].index(r"\input")


def test_references_are_resolved_by_the_order_of_print(axes, tmp_path):
    (tmp_path / "b.bib").write_text("@misc{he,\n}\n@article{pan,\n}\n")
    first, second = Figure(axes, "ordered-one", ""), Table("", "", NUMBERS, "ordered-two", "")
    shown(first), shown(second)
    script = resolve_references(tmp_path / "b.bib").data
    numbers = json.loads(re.search("const numbers = (.*);", script)[1])
    assert (numbers["he"], numbers["pan"]) == (1, 2)
    assert f"Figure {numbers['fig:ordered-one']}:" in shown(first)[0]["text/html"]
    assert f"Table {numbers['tab:ordered-two']}:" in shown(second)[0]["text/html"]
    prose = shown(Prose(r"Figure \ref{fig:ordered-one}"))[0]["text/markdown"]  # MathJax would show "???"
    assert prose == r'Figure <span class="mathjax_ignore">\ref{fig:ordered-one}</span>'


def test_a_forgotten_raw_string_is_refused(axes):
    for make in (Prose, lambda text: Table("", "", NUMBERS, "t", text), lambda text: Figure(axes, "f", text)):
        with pytest.raises(ValueError, match="raw string"):
            make("Table \ref{tab:one}")


def test_title_page_prints_all_that_it_is_given():
    page = TitlePage("50 %", ["Ada\na_b@c.de", "Max"], "", "Synthetic & small.")
    assert page.latex.splitlines() == [
        r"\title{50 \%}",
        r"\author{Ada \\ a\_b@c.de \and Max}",
        r"\date{}",
        r"\maketitle",
        r"\begin{notice}",
        r"Synthetic \& small.",
        r"\end{notice}",
    ]
    assert "Synthetic &amp; small." in shown(page)[0]["text/html"]
    assert "notice" not in TitlePage("T", ["One author"]).latex
