"""Tables as LaTeX: what stands in them, and that no line of them is wider than the text, as LaTeX itself says."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import planted
import polars as pl
import pytest
from planted import Plant

from pythiageo.cli.app import run as cli
from pythiageo.figures.write import write_paper
from pythiageo.observations.export import drop_constants
from pythiageo.observations.latex import LONG, PACKAGES, latex_table, latex_text

PDFLATEX = shutil.which("pdflatex")
needs_latex = pytest.mark.skipif(PDFLATEX is None, reason="no pdflatex (apt-get install texlive-latex-recommended)")
HOSTILE = r"\input{/etc/passwd} a_b & 50% ~ ^ # {x} $y$ " + "very_long_name_of_a_measure/that/goes-on" * 3


def overfull(folder: Path, tables: list[Path]) -> list[str]:
    """Compile the tables in an article and return its complaints of boxes that are too wide or too high."""
    assert PDFLATEX is not None
    packages = "".join(rf"\usepackage{{{name}}}" for name in PACKAGES)
    inputs = "\n".join(rf"\input{{{path}}}\clearpage" for path in tables)
    text = (
        rf"\documentclass{{article}}{packages}\usepackage[T1]{{fontenc}}\usepackage{{lmodern}}\begin{{document}}" "\n"
    )
    (folder / "all.tex").write_text(text + inputs + "\n" + r"\end{document}" + "\n", encoding="utf-8")
    done = subprocess.run(
        [PDFLATEX, "-no-shell-escape", "-halt-on-error", "-interaction=nonstopmode", "all.tex"],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    log = (folder / "all.log").read_text(errors="replace")
    return re.findall(r"Overfull .*|Float too large.*", log)


def test_rules_heads_and_numbers() -> None:
    frame = pl.DataFrame({"task": ["ADD", "MOD"], "layer_0": [1 / 3, None]})
    text = latex_table(frame, "A caption, 50%.", "tab:one", digits=3, heads=["task", "block 0"])
    assert [line for line in text.splitlines() if not line.startswith(r"\begin{tabular}")] == [
        r"\begin{table}", r"\centering", r"\caption{A caption, 50\%.}\label{tab:one}", r"\footnotesize",
        r"\setlength{\tabcolsep}{3pt}", r"\toprule", r"task & block 0 \\", r"\midrule", r"ADD & 0.333 \\", r"MOD &  \\",
        r"\bottomrule", r"\end{tabular}", r"\end{table}",
    ]  # fmt: skip
    shares = [float(share) for share in re.findall(r"dimexpr ([0-9.]+)\\linewidth", text)]
    assert len(shares) == 2
    assert sum(shares) <= 1.0
    assert latex_text("σ² ≥ β") == r"\ensuremath{\sigma}\textsuperscript{2} \ensuremath{\geq} \ensuremath{\beta}"


def test_columns_that_do_not_fit_follow_with_the_leading_ones_again() -> None:
    frame = pl.DataFrame({"task": ["ADD"], "level": ["L1"], **{f"layer_{block}": [1.5] for block in range(32)}})
    text = latex_table(frame, "Layers.", "tab:layers", heads=["task", "level", *(f"block {b}" for b in range(32))])
    heads = re.findall(r"\\toprule\n(.*) \\\\", text)
    assert len(heads) > 1
    assert all(head.startswith("task & level & ") for head in heads)
    assert [name for head in heads for name in head.split(" & ")[2:]] == [f"block {block}" for block in range(32)]
    assert text.count(r"\caption") == 1


def test_columns_that_say_the_same_are_named_once() -> None:
    frame = pl.DataFrame({"run": ["a", "a"], "tokens": [None, None], "step": [0, 1], "value": [1.0, 1.0]})
    kept, said = drop_constants(frame)
    assert (kept.columns, said) == (["step", "value"], "the same in every row: run a; empty: tokens")
    assert drop_constants(frame.head(1))[0].columns == frame.columns


def test_export_takes_a_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = planted.write_run(tmp_path / "run", planted.rows({"ADD": Plant(), "MOD": Plant()}, [0, 100, 300], layers=4))
    part = ["--tasks", "MOD", "--measures", "rankme", "--steps", "0,300", "--layers", "1,last", "--digits", "3"]
    assert cli(["export", str(run), *part, "--format", "csv,latex", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "left out of md and latex, the same in every row: run nano-42" in said
    table = pl.read_csv(tmp_path / "out" / "per_layer.csv")
    assert table["step"].to_list() == [0, 300]
    assert {"layer_1", "layer_3"} == {name for name in table.columns if name.startswith("layer_")}
    assert table["layer_3"].to_list() == [2.5 * Plant().rank(step) for step in (0, 300)]
    tex = (tmp_path / "out" / "per_layer.tex").read_text()
    assert r"step & tokens & block 1 & block 3" in tex
    assert "RankMe (dimensions). The same in every row: run nano-42" in tex
    for wrong, sentence in (
        (["--layers", "9"], "the blocks are 0 to 3"),
        (["--tasks", "MODD"], "did you mean 'MOD'"),
        (["--steps", "50"], "50"),
    ):
        assert cli(["export", str(run), *wrong, "--out", str(tmp_path / "none")]) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@needs_latex
@pytest.mark.slow
def test_no_box_is_overfull(tmp_path: Path) -> None:
    plants = {name: Plant() for name in ("COPY", "ADD", "MOD", "SORT")}
    runs = [
        planted.write_run(tmp_path / name, planted.rows(plants, range(0, 1001, 100), layers=12, run=name, seed=seed))
        for seed, name in enumerate(("a-run-of-a-rather-long-name", "nano-42", "text"))
    ]
    tables = [path for each in write_paper(runs, tmp_path / "paper", ["svg"]) for path in each.files]
    tables = [path for path in tables if path.suffix == ".tex"]
    for number, wide in enumerate(("--wide", "--long")):
        out = tmp_path / f"export{number}"
        assert cli(["export", str(runs[0]), "--tasks", "MOD", wide, "--format", "latex", "--out", str(out)]) == 0
        tables += out.glob("*.tex")
    frame = pl.DataFrame({"name": [HOSTILE] * (LONG + 5), "value": [1 / 3] * (LONG + 5), "why": [HOSTILE] * (LONG + 5)})
    for number, rows in enumerate((3, LONG + 5)):
        path = tmp_path / f"hostile{number}.tex"
        path.write_text(latex_table(frame.head(rows), HOSTILE, "tab:h"), encoding="utf-8")
        tables.append(path)
    assert overfull(tmp_path, tables) == []
