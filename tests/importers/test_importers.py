"""Other people's results become runs like any other, or one sentence that says why not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pythiageo.cli.app import run as cli
from pythiageo.compare import compare
from pythiageo.events import events, open_run
from pythiageo.observations import read_manifest, read_observations

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the tables measured by others are not here")
MAPPING = """
tokens_per_step = 100
first_layer_is_embedding = true
[columns]
series = "model"
step = "step"
task = "task"
measure = "metric"
layer = "layer"
value = "score"
stderr = "error"
[where]
shots = "zero"
[constants]
level = "mixed"
readout = "mean/uncentred"
[rename.measure]
acc = "accuracy"
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [
        {"model": model, "step": step, "task": "sciq", "metric": "acc", "layer": layer, "shots": shots,
         "score": float("nan") if (step, layer) == (8, 2) else step / 100 + layer / 10, "error": 0.5}
        for model in ("a", "b") for step in (8, 1, 4) for layer in (0, 1, 2) for shots in ("zero", "five")
    ]  # fmt: skip
    path = tmp_path / "scores.csv"
    pl.DataFrame(rows).write_csv(path)
    (tmp_path / "map.toml").write_text(MAPPING)
    return path


def bring(source: Path, *arguments: str) -> int:
    return cli(["import", str(source), "--out", str(source.parent / "run"), *arguments])


def test_a_tidy_table_becomes_a_run(table: Path) -> None:
    assert bring(table, "--map", str(table.parent / "map.toml"), "--where", "model=b") == 0
    found = read_observations(table.parent / "run")
    assert found.height == 9
    row = found.filter(step=4, layer=1).row(0, named=True)
    wanted: dict[str, Any] = {
        "run": "b", "series": "b", "regime": "naturalistic", "size": "b", "seed": None, "step": 4, "tokens": 400,
        "task": "sciq", "level": "mixed", "layer": 1, "site": "blocks.1.hook_resid_post", "measure": "accuracy",
        "readout": "mean/uncentred", "value": 4 / 100 + 2 / 10, "stderr": 0.5, "status": "ok", "reason": None,
    }  # fmt: skip
    assert {name: row[name] for name in wanted} == wanted
    embedding = found.filter(step=4, site="hook_embed").row(0, named=True)
    assert (embedding["layer"], embedding["value"]) == (None, 0.04)
    lost = found.filter(step=8, layer=1).row(0, named=True)
    assert (lost["status"], lost["value"], lost["stderr"]) == ("undefined", None, None)
    assert lost["reason"] == "the source holds no finite number here"
    manifest = read_manifest(table.parent / "run")
    sha = hashlib.sha256(table.read_bytes()).hexdigest()
    assert manifest["provenance"]["sources"] == [{"name": "scores.csv", "sha256": sha}]
    assert [checkpoint["step"] for checkpoint in manifest["checkpoints"]] == [1, 4, 8]
    assert manifest["kind"] == "import"
    assert cli(["runs", "show", str(table.parent / "run")]) == 0
    assert cli(["export", str(table.parent / "run")]) == 0


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ("", [], "rows of 2 series (a, b): choose one with --where"),
        ("", ["--where", "modell=b"], "no column 'modell' (did you mean 'model'?)"),
        ("", ["--where", "model=c"], "no row has model = 'c'"),
        ("", ["--where", "model"], "--where model: expected COLUMN=VALUE"),
        ('value = "score"=value = "scores"', ["--where", "model=a"], "no column 'scores'"),
        ('value = "score"=', ["--where", "model=a"], "says of no column that it is 'value'"),
        ('value = "score"=value = "task"', ["--where", "model=a"], "value must hold numbers, got 'sciq'"),
        ('step = "step"=step = "error"', ["--where", "model=a"], "a step is a whole number from 0 up, got 0.5"),
        ('layer = "layer"=', ["--where", "model=a"], "of step 8 is there twice"),
        ('shots = "zero"=shots = "ten"', ["--where", "model=a"], "no row has shots = 'ten'"),
        ("[columns]=[column]", ["--where", "model=a"], "column"),
    ],
)
def test_what_cannot_be_imported_is_one_sentence(
    table: Path, change: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mapping = table.parent / "map.toml"
    if change:
        before, _, after = change.partition("=") if change.startswith("[") else _parts(change)
        mapping.write_text(MAPPING.replace(before, after))
    assert bring(table, "--map", str(mapping), *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (table.parent / "run").exists()


def _parts(change: str) -> tuple[str, str, str]:
    key, value, rest = change.split("=", 2)
    return f"{key}={value}", "=", rest


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("nan,1", "a step is a whole number from 0 up, got nan"),
        ("inf,1", "a step is a whole number from 0 up, got inf"),
        ("1e30,1", "a step is a whole number from 0 up, got 1e+30"),
        ("1,nan", "a layer is a whole number from 0 up, got nan"),
        ("1,-3", "a layer is a whole number from 0 up, got -3"),
        ("1,1.5", "a layer is a whole number from 0 up, got 1.5"),
    ],
)
def test_steps_and_layers_that_are_no_whole_numbers_are_told(
    row: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.csv").write_text(f"step,layer,value\n{row},0.5\n")
    (tmp_path / "map.toml").write_text(
        '[columns]\nstep = "step"\nlayer = "layer"\nvalue = "value"\n[constants]\nmeasure = "rankme"\n'
    )
    assert bring(tmp_path / "t.csv", "--map", str(tmp_path / "map.toml")) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_series_has_its_own_batch_size_and_its_last_layer_the_final_norm(table: Path) -> None:
    mapping = table.parent / "map.toml"
    mapping.write_text("last_layer_is_final_norm = true\n" + MAPPING + "[tokens_per_step_of]\nb = 50\n")
    assert bring(table, "--map", str(mapping), "--where", "model=b") == 0
    found = read_observations(table.parent / "run")
    assert set(zip(found["step"], found["tokens"], strict=True)) == {(1, 50), (4, 200), (8, 400)}
    sites = found.filter(step=4).select("layer", "site").rows()
    assert sites == [(None, "hook_embed"), (0, "blocks.0.hook_resid_post"), (1, "ln_final.hook_out")]


def test_an_empty_or_foreign_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "map.toml").write_text(MAPPING)
    mapped = ["--map", str(tmp_path / "map.toml")]
    for name, content, message in (
        ("empty.csv", "", "cannot be read"),
        ("none.csv", "model,step,task,metric,layer,score,error,shots\n", "no row has shots"),
        ("broken.parquet", "not parquet", "cannot be read"),
        ("table.xlsx", "x", "expected a .parquet, .csv or .tsv file"),
    ):
        (tmp_path / name).write_text(content)
        assert bring(tmp_path / name, *mapped) == 2
        assert message in capsys.readouterr().err
    assert bring(tmp_path / "absent.csv", *mapped) == 2
    assert "no such file" in capsys.readouterr().err


OLD = {
    "results": {"sciq": {"acc": 0.25, "acc_stderr": 0.01, "acc_norm": 0.3, "acc_norm_stderr": 0.02}},
    "versions": {"sciq": 0},
    "config": {"model": "hf", "model_args": "pretrained=EleutherAI/pythia-160m,revision=step1000", "num_fewshot": 0},
}
NEW = {
    "results": {"sciq": {"alias": "sciq", "acc,none": 0.5, "acc_stderr,none": 0.02},
                "lambada_openai": {"perplexity,none": 12.0, "perplexity_stderr,none": "N/A"}},
    "n-shot": {"sciq": 5, "lambada_openai": 0},
    "n-samples": {"sciq": {"original": 1000, "effective": 100}},
    "config": {"model": "hf", "model_args": {"pretrained": "EleutherAI/pythia-160m", "revision": "step2000"}},
}  # fmt: skip


def test_the_harnesss_files_of_both_layouts_become_one_run(tmp_path: Path) -> None:
    for name, content in (("one.json", OLD), ("two/results_2026.json", NEW), ("notes.json", {"other": 1})):
        (tmp_path / "results" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "results" / name).write_text(json.dumps(content))
    assert cli(["import", str(tmp_path / "results"), "--out", str(tmp_path / "run")]) == 0
    found = read_observations(tmp_path / "run")
    rows = {(row["step"], row["task"], row["level"], row["measure"]): row for row in found.rows(named=True)}
    assert {key: (row["value"], row["stderr"], row["n"]) for key, row in rows.items()} == {
        (1000, "sciq", "0-shot", "accuracy"): (0.25, 0.01, None),
        (1000, "sciq", "0-shot", "accuracy_normalised"): (0.3, 0.02, None),
        (2000, "sciq", "5-shot", "accuracy"): (0.5, 0.02, 100),
        (2000, "lambada_openai", "0-shot", "answer_perplexity"): (12.0, None, None),
    }
    assert set(found["series"]) == {"EleutherAI/pythia-160m"}
    assert set(found["run"]) == {"pythia-160m"}
    assert events(found, "billa-v4").height > 0


def test_a_folder_that_the_harness_0_4_13_wrote_becomes_a_run(tmp_path: Path) -> None:
    """Layout, keys and places as ``EvaluationTracker.save_results_aggregated`` of lm_eval 0.4.13 leaves them."""
    for step, accuracy in ((2, 0.5), (1, 0.0)):
        folder = tmp_path / "results" / f"step{step}" / "tiny"
        folder.mkdir(parents=True)
        results = {
            "sciq": {"name": "sciq", "alias": "sciq", "sample_len": 2, "acc,none": accuracy, "acc_stderr,none": 0.1}
        }
        content = {
            "results": results, "n-shot": {"sciq": 0}, "n-samples": {"sciq": {"original": 2, "effective": 2}},
            "higher_is_better": {"sciq": {"acc": True}}, "versions": {"sciq": 1.0}, "model_name": "tiny",
            "config": {"model": "/models/tiny", "model_args": None, "num_fewshot": None}, "lm_eval_version": "0.4.13",
        }  # fmt: skip
        (folder / f"results_2026-11-23T08-22-2{step}.437998.json").write_text(json.dumps(content))
    assert bring(tmp_path / "results") == 0
    found = read_observations(tmp_path / "run").select("step", "task", "level", "measure", "value", "stderr", "n")
    assert found.rows() == [
        (1, "sciq", "0-shot", "accuracy", 0.0, 0.1, 2),
        (2, "sciq", "0-shot", "accuracy", 0.5, 0.1, 2),
    ]


def test_imports_are_compared_where_their_source_says_that_they_ask_the_same(tmp_path: Path, table: Path) -> None:
    """Series of one file, or results under one hash of the harness; never by the task's name alone."""

    def harness(name: str, **asked: dict[str, object]) -> Path:
        content = {**NEW, **asked, "config": {"model_args": {"pretrained": f"me/{name}", "revision": "step2000"}}}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        assert cli(["import", str(tmp_path / f"{name}.json"), "--out", str(tmp_path / name)]) == 0
        return tmp_path / name

    def aligned(a: Path, b: Path) -> tuple[set[str], str]:
        found = compare([open_run(a), open_run(b)], ["billa-v4"])
        return set(found.aligned["task"]), " ".join(found.warnings)

    hashed = [harness(f"hash{k}", task_hashes={"sciq": "ab" * 32}, versions={"sciq": 1.0}) for k in (1, 2)]
    tasks, said = aligned(*hashed)
    assert tasks == {"sciq"}
    assert "1 task of hash1 and hash2 are taken to ask the same: lm-evaluation-harness calls them the same" in said
    assert "lambada_openai 0-shot is not aligned: lambada_openai 0-shot's is unnamed in hash1" in said
    old = harness("old", versions={"sciq": 1.0})
    assert aligned(hashed[0], old)[0] == set()
    assert aligned(old, harness("older", versions={"sciq": 1.0}))[0] == {"sciq"}
    assert aligned(old, harness("oldest", versions={"sciq": 0}))[0] == set()
    models = []
    for model in ("a", "b"):
        arguments = ["--map", str(tmp_path / "map.toml"), "--where", f"model={model}", "--out", str(tmp_path / model)]
        assert cli(["import", str(table), *arguments]) == 0
        models.append(tmp_path / model)
    tasks, said = aligned(*models)
    assert tasks == {"sciq"}
    assert "1 task of a and b are taken to ask the same: they come from one file" in said


def local(root: Path, *paths: str) -> Path:
    for number, path in enumerate(paths):
        folder = root / path.replace("/", "__")
        folder.mkdir(parents=True)
        content = {"results": {"piqa": {"acc,none": 0.1 * number}}, "model_name": path}
        (folder / "results_1.json").write_text(json.dumps(content))
    return root


def test_the_harnesss_results_of_local_checkpoints_are_one_series(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = local(tmp_path / "known", "/a/run1/step1000", "/a/run1/step2000")
    own = local(tmp_path / "own", "/a/run1/it_0005", "/a/run1/it_0010")
    pattern = ["--step-pattern", "it_(?P<step>[0-9]+)"]
    assert cli(["import", str(known), "--out", str(tmp_path / "one")]) == 0
    assert cli(["import", str(own), "--out", str(tmp_path / "two"), *pattern]) == 0
    for run, steps in (("one", (1000, 2000)), ("two", (5, 10))):
        found = read_observations(tmp_path / run).sort("step")
        assert found.select("series", "size", "step", "value").rows() == [
            ("run1", "run1", step, 0.1 * number) for number, step in enumerate(steps)
        ]
    assert cli(["import", str(own), "--out", str(tmp_path / "three")]) == 2
    both = local(tmp_path / "both", "/a/run1/step1", "/b/run1/step2")
    assert cli(["import", str(both), "--out", str(tmp_path / "four")]) == 2
    assert "results of 2 models (/a/run1, /b/run1)" in capsys.readouterr().err


def test_a_step_in_two_files_of_the_harness_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results").mkdir()
    for name in ("step1.json", "again_step1.json"):
        (tmp_path / "results" / name).write_text(json.dumps({"results": {"sciq": {"acc": 0.5}}, "config": "none"}))
    assert bring(tmp_path / "results") == 2
    assert "is there twice: two of 2 files hold it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"result": {}}, "not a result file of lm-evaluation-harness"),
        ({**OLD, "config": {"model_args": "pretrained=a/b"}}, "say a step"),
        ({**OLD, "results": {}}, "there is no number in it"),
        ([1], "not a result file"),
    ],
)
def test_a_file_that_is_not_the_harnesss_is_told(
    tmp_path: Path, content: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file.json").write_text(json.dumps(content))
    assert bring(tmp_path / "file.json") == 2
    assert message in capsys.readouterr().err


TIDY = '[columns]\nstep = "step"\nvalue = "value"\n{}[constants]\nmeasure = "accuracy"\n'


def tidy(folder: Path, content: str, columns: str = "", more: str = "") -> int:
    (folder / "t.csv").write_text(content)
    (folder / "map.toml").write_text(more + TIDY.format(columns))
    return bring(folder / "t.csv", "--map", str(folder / "map.toml"))


def test_text_of_a_table_is_text(tmp_path: Path) -> None:
    columns = 'series = "m"\ntask = "t"\nlevel = "l"\n'
    assert tidy(tmp_path, "m,t,l,step,value\n007,NA,1.0,1e3,.5\n\n007,1e5,2020-01-02,0,\n", columns) == 0
    found = read_observations(tmp_path / "run").select("series", "task", "level", "step", "value").rows()
    assert found == [("007", "1e5", "2020-01-02", 0, None), ("007", "NA", "1.0", 1000, 0.5)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "step,value\n1,38.2\n",
            "accuracy at step 1 is 38.2; expected a share, 0 to 1, and not per cent (the mapping's",
        ),
        ("step,value\n1,-0.1\n", "accuracy at step 1 is -0.1; expected 0 to 1"),
        ("step,value\n143k,0.5\n", "step must hold numbers, got '143k'"),
        ('step,value\n"1,000",0.5\n', "step must hold numbers, got '1,000'"),
        ("step,value\n1_000,0.5\n", "step must hold numbers, got '1_000'"),
        ("step,value\n0.512,0.5\n", "a step is a whole number from 0 up, got 0.512"),
        ("step,value\n1,NA\n", "value must hold numbers, got 'NA'"),
        ("step,value\n1,True\n", "value must hold numbers, got 'True'"),
        ("model,step,value\na,1,.5\nb,2,.5\n", "rows of 2 models (a, b): one run is of one model: choose one with"),
        ("Seed,step,value\n1,1,.5\n2,2,.5\n", "rows of 2 Seeds (1, 2): one run is of one model: choose one with"),
    ],
)
def test_a_table_that_would_be_misread_is_refused(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tidy(tmp_path, content) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_thousands_of_steps_and_per_cent_are_read_as_the_mapping_says(tmp_path: Path) -> None:
    columns = 'stderr = "e"\n'
    more = "step_unit = 1000\n[scale]\naccuracy = 0.01\n"
    assert tidy(tmp_path, "step,value,e\n0,25,2\n0.512,50,2\n143,75,2\n", columns, more) == 0
    found = read_observations(tmp_path / "run").select("step", "value", "stderr").rows()
    assert found == [(0, 0.25, 0.02), (512, 0.5, 0.02), (143_000, 0.75, 0.02)]
    assert read_manifest(tmp_path / "run")["config"]["scale"] == {"accuracy": 0.01}


def harness_folder(folder: Path, files: dict[str, dict[str, Any]]) -> Path:
    (folder / "results").mkdir()
    for name, arguments in files.items():
        results = {"sciq": {"acc": arguments.pop("acc", 0.5)}}
        content = {"results": results, "config": {"model": "neox", "model_args": arguments, "num_fewshot": 0}}
        (folder / "results" / f"{name}.json").write_text(json.dumps(content))
    return folder / "results"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"pythia-160M-0shot-global_step1500_eval_results": {"load": "/ckpts/160M"},
             "pythia-1.3B-0shot-global_step71500_eval_results": {"load": "/ckpts/1.3B"}},
            "results of 2 models (1.3B, 160M): one run is of one model",
        ),
        (
            {"pythia-160M-0shot-global_step1500": {}, "pythia-1.3B-0shot-global_step71500": {}},
            "no file names its model, and their names tell 2 apart (pythia-1-3B, pythia-160M)",
        ),
        ({"step1": {"num_layers": 12}, "step2": {"num_layers": 24}}, "results of models of 2 shapes"),
        (
            {"step1": {"pretrained": "a/b"}, "step2": {"pretrained": "a/b", "peft": "a/adapter"}},
            "results of 2 models (a/b, a/b + peft=a/adapter)",
        ),
        (
            {"a": {"pretrained": "a/b", "revision": "stage1-step1000"},
             "b": {"pretrained": "a/b", "revision": "stage2-step2000"}},
            "results of 2 stages of training",
        ),
        ({"step1.5": {}}, "which step is 'step1.5'?"),
        ({"step1,000": {}}, "which step is 'step1,000'?"),
        ({"step143_000": {}}, "which step is 'step143_000'?"),
        ({"step10b": {}}, "which step is 'step10b'?"),
        ({"step1000": {"acc": 38.1}}, "accuracy of sciq at step 1000 is 38.1; expected a share, 0 to 1"),
    ],
)  # fmt: skip
def test_results_that_would_be_misread_are_refused(
    files: dict[str, dict[str, Any]], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = harness_folder(tmp_path, {name: dict(arguments) for name, arguments in files.items()})
    assert bring(source) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_steps_of_names_with_a_unit_and_one_unnamed_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("sciq_step10k", "sciq-0shot_step_1.5K_eval_results", "global_step512", "step1M_2026-01-02T03-04-05.6")
    source = harness_folder(tmp_path, {name: {} for name in names})
    assert bring(source) == 0
    assert "note: no file names its model: the series is called 'results'" in capsys.readouterr().err
    assert read_observations(tmp_path / "run")["step"].to_list() == [512, 1500, 10_000, 1_000_000]
    assert read_manifest(tmp_path / "run")["provenance"]["notes"]


def test_a_table_with_a_value_out_of_range_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pythiageo.errors import UserError
    from pythiageo.observations import ranges

    assert ranges.outside("accuracy:flexible-extract", 1.5)
    assert not ranges.outside("accuracy_normalised", 1 + 1e-9)
    assert not ranges.outside("llc", -5.0)
    with monkeypatch.context() as patched:  # as an older release let it in
        patched.setattr(ranges, "RANGES", {})
        assert tidy(tmp_path, "step,value\n1,0.5\n2,38.2\n") == 0
    with pytest.raises(UserError, match=r"accuracy at step 2 is 38\.2; expected a share, 0 to 1, and not per cent\."):
        read_observations(tmp_path / "run")


@needs_data
@pytest.mark.parametrize(
    ("table", "mapping", "rows", "steps"),
    [
        ("pythia_lm_eval", "pythia-lm-eval", 4644, 27),
        ("pythia_layer_geometry", "pythia-layer-geometry", 2375, 19),
        ("pythia_layer_mteb", "pythia-layer-mteb", 11200, 14),
    ],
)
def test_tables_of_real_checkpoints_are_imported(
    table: str, mapping: str, rows: int, steps: int, tmp_path: Path
) -> None:
    source = DATA / f"{table}.parquet"
    chosen = ["--map", f"import/{mapping}.toml", "--where", "model=pythia-410m"]
    assert cli(["import", str(source), *chosen, "--out", str(tmp_path / "run")]) == 0
    found = read_observations(tmp_path / "run")
    assert (found.height, found["step"].n_unique()) == (rows, steps)


@needs_data
def test_tokens_of_real_runs_with_other_batch_sizes(tmp_path: Path) -> None:
    source, mapping = DATA / "pythia_lm_eval.parquet", "import/pythia-lm-eval.toml"
    for model in ("pythia-1.4b", "pythia-1.4b-1MtokBS"):
        out = tmp_path / model
        assert cli(["import", str(source), "--map", mapping, "--where", f"model={model}", "--out", str(out)]) == 0
        assert read_observations(out)["tokens"].max() == 143_000 * 2_097_152
