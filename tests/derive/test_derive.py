"""What runs keep beside their tables, in both worlds, and what is derived of it afterwards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from polars.testing import assert_frame_equal
from tinyseries import write_series

from pythiageo.cli.app import run as cli
from pythiageo.derive import compare_states, derive_measures
from pythiageo.errors import UserError
from pythiageo.geometry.measure import load_measures
from pythiageo.geometry.spectrum import Spectrum
from pythiageo.observations import read_manifest, read_observations
from pythiageo.observations.sidecars import SidecarStore

SPECTRAL = ["alpha_req", "covariance_effective_rank", "rankme", "stable_rank"]
READOUTS = ["answer/centred", "answer/uncentred", "mean/centred", "mean-but-sinks/centred", "all-but-sinks/uncentred"]
SETS = ['probes.tasks=["ADD","CMP"]', "probes.score_examples=4", "probes.geometry_examples=40",
        f"measures.readouts={json.dumps(READOUTS)}",
        'measures.sketch_positions=["answer","mean","all-but-sinks"]']  # fmt: skip
FEW = ["--quiet", *(part for one in SETS for part in ("--set", one))]
KEEP = ["--spectra", "--sketch", "300"]
MEASURES = ["--set", f"measures.geometry={json.dumps([*SPECTRAL, 'cka_below'])}"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    shape = ("layers=2", "d_model=32", "heads=4", "d_ff=64")
    sets = [*(f"model.{one}" for one in shape), "training.batch_size=8", "training.warmup=5", "training.stop=10"]
    assert cli(["train", "demo/tasks.toml", *(part for one in sets for part in ("--set", one)), "--checkpoints",
                "0-10:5", "--out", str(out), *FEW, *KEEP, *MEASURES]) == 0  # fmt: skip
    return out


@pytest.fixture(scope="module")
def analyzed(trained: Path) -> Path:
    out = trained.parent / "analyzed"
    assert cli(["analyze", str(trained), "--name", "analyzed", "--out", str(out), *FEW, *KEEP, *MEASURES]) == 0
    return out


def test_derived_measures_are_the_runs_rows_in_both_worlds(trained: Path, analyzed: Path) -> None:
    for run in (trained, analyzed):
        table = read_observations(run).filter(pl.col("measure").is_in(SPECTRAL))
        assert_frame_equal(derive_measures(run, SPECTRAL), table, check_exact=True)
        assert set(table["readout"]) == set(READOUTS)
        assert {"ok", "undefined"} <= {*table["status"], "undefined"}


def test_a_fit_over_other_ranks_is_derived_by_its_name(trained: Path) -> None:
    found = derive_measures(trained, ["alpha_req_12_24"])
    assert found["measure"].unique().to_list() == ["alpha_req_12_24"]
    ranks, checked = np.arange(12, 25), 0
    for entry in read_manifest(trained).checkpoints:
        for row in SidecarStore(trained).spectra(entry):
            where = {name: getattr(row, name) for name in ("step", "task", "site", "readout")}
            [expected] = found.filter(**where)["value"]
            if expected is not None:
                logs = np.log(np.asarray(row.sigma)[11:24] ** 2)
                # numpy weighs residuals, so that squares weigh 1/j
                assert expected == pytest.approx(-np.polyfit(np.log(ranks), logs, 1, w=ranks**-0.5)[0], rel=1e-9)
                checked += 1
    assert checked > 0
    with pytest.raises(UserError, match="no measure 'alpha_req_12_13'"):
        derive_measures(trained, ["alpha_req_12_13"])


def test_kept_spectra_are_bit_for_bit_those_of_the_measures(trained: Path) -> None:
    """A measure of sigma is the same number of the kept values as in the table, with no tolerance."""
    table = read_observations(trained).filter(pl.col("measure") == "rankme")
    rankme, store, seen = load_measures()["rankme"], SidecarStore(trained), 0
    for entry in read_manifest(trained).checkpoints:
        for row in store.spectra(entry):
            where = {name: getattr(row, name) for name in ("step", "task", "site", "readout")}
            [expected] = table.filter(**where)["value"]
            spectrum = Spectrum(torch.tensor(row.sigma), row.n, row.width, row.method)  # type: ignore[arg-type]
            assert rankme.function(spectrum) == expected
            assert len(row.sigma) == min(row.n, row.width)  # type: ignore[type-var,arg-type]
            seen += 1
    assert seen == table.height


def test_sketches_are_of_the_states_that_transformer_lens_gives(trained: Path, analyzed: Path) -> None:
    """CKA of a checkpoint in training with the same one analyzed is 1, and with the site below it is the run's row.

    The run's row is of all rows in float64: a sketch of all of them is within 1e-6.
    """
    same = compare_states(trained, analyzed, ["linear_cka", "procrustes", "subspace_overlap"], dimensions=4)
    assert set(same["status"]) == {"ok"}
    assert same.height == 3 * 3 * 3 * 2 * 3
    perfect = same.filter(pl.col("measure") != "procrustes")["value"]
    assert float((1 - perfect).abs().max()) < 1e-6
    assert float(same.filter(measure="procrustes")["value"].max()) < 1e-6
    layers = compare_states(trained, measures=["linear_cka"], between="layers", positions=["answer"], steps="all")
    assert (layers["n"] == layers["of"]).all()
    rows = read_observations(trained).filter(measure="cka_below", readout="answer/centred")
    for row in rows.filter(status="ok").iter_rows(named=True):
        below = {"blocks.1.hook_resid_post": "blocks.0.hook_resid_post"}.get(row["site"], "blocks.1.hook_resid_post")
        [found] = layers.filter(step_a=row["step"], task=row["task"], site_a=below, site_b=row["site"])["value"]
        assert found == pytest.approx(row["value"], abs=1e-6)


def test_keeping_changes_no_row(trained: Path, tmp_path: Path) -> None:
    command = ["analyze", str(trained), "--name", "plain", *FEW, *MEASURES, "--steps", "10", "--threads", "2"]
    assert cli([*command, "--out", str(tmp_path / "plain")]) == 0
    assert cli([*command, *KEEP, "--out", str(tmp_path / "kept")]) == 0
    tables = [read_observations(tmp_path / name) for name in ("plain", "kept")]
    assert_frame_equal(*tables, check_exact=True)
    assert not (tmp_path / "plain" / "spectra").exists()
    assert all("kept" not in one.as_json() for one in read_manifest(tmp_path / "plain").checkpoints)
    assert not (tmp_path / "plain" / "sketches").exists()


def test_a_spectrum_that_no_measure_took_is_taken(trained: Path, tmp_path: Path) -> None:
    """Then as a distribution: a measure of single values says so, and a rank is that of float64 to its bound."""
    out = tmp_path / "run"
    assert cli(["analyze", str(trained), "--name", "few", "--out", str(out), *FEW, "--spectra", "--steps", "10",
                "--set", 'measures.geometry=["mean_cosine"]']) == 0  # fmt: skip
    found = derive_measures(out, ["rankme", "alpha_req"]).filter(task="ADD")
    taken = derive_measures(trained, ["rankme"]).filter(task="ADD", step=10)
    ranks = found.filter(measure="rankme")
    assert (ranks["value"] - taken["value"]).abs().max() < 1e-5
    withheld = found.filter((pl.col("measure") == "alpha_req") & (pl.col("status") != "ok"))
    assert withheld.height
    assert withheld["reason"].str.contains("this measure needs every value").all()


def test_what_is_derived_is_a_run_with_the_runs_own_rows(trained: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "derived"
    assert cli(["derive", str(trained), "--measure", "participation_ratio,rankme", "--out", str(out)]) == 0
    assert "new observations, beside the run's own" in capsys.readouterr().out
    table, before = read_observations(out), read_observations(trained)
    new = table.filter(measure="participation_ratio")
    assert new.height == before.filter(measure="rankme").height
    assert_frame_equal(table.filter(pl.col("measure") != "participation_ratio"), before, check_exact=True)
    assert read_manifest(out)["derived"]["measures"] == ["participation_ratio", "rankme"]
    assert cli(["claims", str(out), "--only", "top-down-profile"]) == 0
    assert cli(["derive", str(trained), "--measure", "rankme", "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_what_can_be_derived_is_listed(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["derive", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    derivable = {one["name"] for one in said["measures"] if one["derivable"]}
    assert {*SPECTRAL, "participation_ratio"} <= derivable
    assert not {"two_nn", "cka_below", "mean_cosine"} & derivable
    assert {one["name"] for one in said["similarity"]} >= {"linear_cka", "procrustes", "subspace_angle"}
    assert cli(["derive", str(trained)]) == 0
    assert "keeps spectra of 3 checkpoints and sketches of 3 checkpoints" in capsys.readouterr().out


def test_the_size_that_plan_says_is_the_size_there_is(trained: Path, tmp_path: Path, capsys) -> None:
    command = [str(trained), "--name", "sized", *FEW, *KEEP, "--set", 'measures.geometry=["rankme"]', "--json"]
    assert cli(["plan", *command]) == 0
    said = json.loads(capsys.readouterr().out)["kept_bytes"]
    assert cli(["analyze", *command, "--out", str(tmp_path / "run")]) == 0
    there = {kind: sum(one.stat().st_size for one in (tmp_path / "run" / kind).iterdir()) for kind in said}
    for kind, count in said.items():  # zstd takes a tenth off, and more where rows of equal prompts repeat
        assert 0.7 * count < there[kind] < 1.05 * count, kind
    assert cli(["plan", *command[:-1], "--quiet"]) == 0
    assert "kept beside the table" in capsys.readouterr().out


def test_every_two_checkpoints_layers_or_models_are_paired_once(trained: Path, analyzed: Path) -> None:
    def pairs(*runs: Path, **asked: object) -> int:
        settings = {"tasks": ["ADD"], "positions": ["mean"], "steps": "all", **asked}
        found = compare_states(*runs, measures=["linear_cka"], **settings)  # type: ignore[arg-type]
        assert set(found["status"]) == {"ok"}
        assert found["value"].is_between(0, 1 + 1e-12).all()
        return found.height

    assert pairs(trained) == pairs(trained, between="steps") == 3 * 3
    assert pairs(trained, between="layers") == 3 * 3
    assert pairs(trained, between="all") == 9 * 8 // 2
    assert pairs(trained, analyzed) == 9
    assert pairs(trained, analyzed, between="layers") == 3 * 9
    assert pairs(trained, analyzed, between="all", steps="0", other_steps="5,10", sites=["blocks.0.*"]) == 2
    assert (
        pairs(trained, between="steps", steps="10", other_steps="0,5", other_sites=["ln_final.*"], sites=["ln*"]) == 2
    )


def test_one_row_an_example_compares_models_of_different_tokenizers(trained: Path, tmp_path: Path) -> None:
    """The same texts under another tokenizer: rows of ``mean`` stand for the same items, those of ``answer`` do not."""
    series = write_series(tmp_path / "series", [0])
    [file] = series.glob("*/tokenizer.json")
    said = json.loads(file.read_text())
    vocabulary = said["model"]["vocab"]
    vocabulary["1"], vocabulary["2"] = vocabulary["2"], vocabulary["1"]
    file.write_text(json.dumps(said))
    run = tmp_path / "run"
    assert cli(["analyze", str(series), "--name", "other", "--out", str(run), *FEW, *KEEP, *MEASURES]) == 0
    found = compare_states(trained, run, ["linear_cka"], positions=["mean"], sites=["blocks.0.*"], between="all")
    assert set(found["status"]) == {"ok"}
    with pytest.raises(UserError, match="do not stand for the same tokens: take positions with one row an example"):
        compare_states(trained, run, positions=["answer"], between="all")
    # the sinks that are left out are the model's own: a pair of other rows is a row without a value
    spared = compare_states(trained, run, ["linear_cka"], positions=["all-but-sinks"], between="all")
    assert set(spared["status"]) == {"undefined"}
    shutil.rmtree(run)
    fewer = [*FEW, "--set", "probes.geometry_examples=39"]
    assert cli(["analyze", str(series), "--name", "other", "--out", str(run), *fewer, *KEEP, *MEASURES]) == 0
    with pytest.raises(UserError, match="sketch the states of other items: only states of the same prompts compare"):
        compare_states(trained, run, positions=["mean"], between="all")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["derive", "--measure", "rankme"], "expected a run folder that keeps spectra"),
        (["derive", "RUN", "--measure", "rankmee"], "did you mean 'rankme'"),
        (["derive", "RUN", "--measure", "two_nn"], "two_nn needs the rows themselves"),
        (["derive", "none", "--measure", "rankme"], "there is no run folder"),
        (["similarity", "RUN", "--measure", "linearcka"], "did you mean 'linear_cka'"),
        (["similarity", "RUN", "--between", "layer"], "did you mean 'layers'"),
        (["similarity", "RUN", "--between", "runs"], "between runs needs two of them"),
        (["similarity", "RUN", "--tasks", "ADDD"], "did you mean 'ADD'"),
        (["similarity", "RUN", "--positions", "last"], "no sketch of positions 'last'"),
        (["similarity", "RUN", "--sites", "blocks.7.*"], "no site 'blocks.7.*'"),
        (["similarity", "RUN", "--steps", "3"], "step"),
        (["similarity", "RUN", "--steps", "0"], "no two sketches to compare between steps"),
        (["similarity", "RUN", "--out", "x.xls"], "expected a file that ends in .csv"),
        (["similarity", "RUN", "--dimensions", "0"], "dimensions: expected at least 1"),
        (["analyze", "RUN", "--sketch", "5", "--set", 'measures.sketch_positions=["lasst"]'], "did you mean 'last'"),
    ],
)
def test_a_mistake_is_one_sentence(
    arguments: list[str], message: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli([str(trained) if word == "RUN" else word for word in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not list(tmp_path.glob("*/manifest.json"))


def test_a_strangers_file_is_refused_in_a_sentence(trained: Path, tmp_path: Path) -> None:
    def damaged(change: object) -> Path:
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(trained, tmp_path / "run")
        file = tmp_path / "run" / "sketches" / "step-00000005.parquet"
        change(file)  # type: ignore[operator]
        return tmp_path / "run"

    def cut(file: Path) -> None:
        file.write_bytes(file.read_bytes()[:-50])

    def lead_out(file: Path) -> None:
        file.unlink()
        file.symlink_to(trained / "sketches" / file.name)

    def shorten(file: Path) -> None:
        table = pl.read_parquet(file)
        _write(table.with_columns(pl.col("values").list.head(3)), file)

    def poison(file: Path) -> None:
        table = pl.read_parquet(file)
        _write(table.with_columns(pl.lit(float("nan")).alias("scale")), file)

    def rename(file: Path) -> None:
        table = pl.read_parquet(file)
        _write(table.rename({"fed": "bread"}), file)

    def _write(table: pl.DataFrame, file: Path) -> None:
        arrow = pq.read_table(file)
        new = table.to_arrow(compat_level=pl.CompatLevel.oldest())
        if set(table.columns) == set(arrow.column_names):
            new = new.cast(arrow.schema)
        pq.write_table(new.replace_schema_metadata(arrow.schema.metadata), file)

    for change, message in (
        (cut, "is not a whole Parquet file"),
        (lead_out, "leads outside the run folder"),
        (shorten, "does not hold"),
        (poison, "NaN or infinity"),
        (rename, "other columns"),
        (Path.unlink, "is not there: excerpts and published runs hold the table alone"),
    ):
        with pytest.raises(UserError, match=message):
            compare_states(damaged(change))


def test_measure_of_a_model_in_memory_keeps_nothing_and_says_so() -> None:
    import pythiageo

    with pytest.raises(UserError, match="kept in a run's folder, and there is none here"):
        pythiageo.measure(torch.nn.Linear(1, 1), None, settings={"measures.spectra": True})
