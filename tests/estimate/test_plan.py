"""Plans: what can be counted is exact, what is tried is told by a trial, and no weights are fetched for it."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from onhub import command

from pythiageo.cli.app import run as cli
from pythiageo.config.runs import AnalyzeConfig
from pythiageo.config.tables import ComputeConfig, LinearProbeConfig, MeasureConfig, ProbeConfig
from pythiageo.errors import CheckpointError
from pythiageo.estimate.timer import finish, scale, spread, time_items
from pythiageo.estimate.trial import Trial, count_sites
from pythiageo.lens import BridgeReader
from pythiageo.measurement.forward import Reading
from pythiageo.measurement.geometry import observe
from pythiageo.measurement.geometry_plan import GeometryPlan
from pythiageo.measurement.linear_probe import LinearProbe
from pythiageo.measurement.probe_sets import GEOMETRY, choose_probes, prepare
from pythiageo.measurement.result import Origin
from pythiageo.measurement.task_forest import grow
from pythiageo.probes.encoding import FileTokenizer
from pythiageo.series.audit.samples import most_bytes
from pythiageo.series.files.load import open_folder
from pythiageo.series.hub.loopback import LoopbackHub, serve_folder
from pythiageo.series.model_shape import ModelShape
from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.trainable import ARCHITECTURES, write_checkpoint

STEPS = (0, 10, 20, 30)
FEW = ["--tasks", "ADD,COPY", "--set", "probes.score_examples=5", "--set", "probes.geometry_examples=9"]


def made(architecture: str, root: Path) -> Path:
    for step in STEPS:
        trainable = ARCHITECTURES[architecture](Shape(3, 32, 4, 128, 48, 41, True), seed=step)
        write_checkpoint(root / f"step{step}", trainable, step, tokens=step)
    return root


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made("gpt_neox", tmp_path_factory.mktemp("planned"))


def planned(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    assert cli(["plan", *arguments, *FEW, "--json", "--quiet"]) == code
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("architecture", ["gpt_neox", "gpt2"])
def test_parameters_are_counted_as_loaded(architecture: str, tmp_path: Path) -> None:
    series = made(architecture, tmp_path)
    blueprint = ModelShape.read(series / "step0", "step0")
    model = open_folder(series / "step0", "step0").model
    assert blueprint.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert blueprint.joint == 3 * (3 * 32 * 32 + 3 * 32)
    assert (blueprint.layers, blueprint.d_model, blueprint.context) == (3, 32, 48)
    block = blueprint.one_block()
    assert block(torch.zeros(2, 5, dtype=torch.long)).logits.shape[:2] == (2, 5)
    assert block.config.num_hidden_layers == 1
    assert blueprint.with_blocks(2).config.num_hidden_layers == 2


def test_a_config_that_nothing_can_be_built_from_is_told(series: Path, tmp_path: Path) -> None:
    config = json.loads((series / "step0" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(CheckpointError, match="never run"):
        ModelShape.read(tmp_path, "t")
    heads = "num_attention_heads" if "num_attention_heads" in config else "n_head"
    (tmp_path / "config.json").write_text(json.dumps(config | {heads: "many"}))
    with pytest.raises(CheckpointError, match="t: transformers cannot build this config"):
        ModelShape.read(tmp_path, "t")


@pytest.mark.parametrize("probed", [False, True])
def test_tokens_are_those_that_a_run_feeds(series: Path, capsys: pytest.CaptureFixture[str], probed: bool) -> None:
    plan = planned(capsys, str(series), *(("--set", "measures.linear_probe=true") if probed else ()))
    config = ProbeConfig(tasks=("ADD", "COPY"), score_examples=5, geometry_examples=9)
    folder = series / "step0"
    prepared = prepare(choose_probes(config), FileTokenizer(folder), None)
    reader = BridgeReader(open_folder(folder, "t").model, folder)
    fed, read = [], reader.read

    def counting(ids: torch.Tensor, *rest: Any) -> Any:
        fed.append(ids.numel())
        return read(ids, *rest)

    reader.read = counting  # type: ignore[method-assign]
    origin = Origin("r", "s", "naturalistic", "x", None, 0, None, None)
    measures = MeasureConfig(linear_probe=LinearProbeConfig() if probed else None)
    reading = Reading.of(reader, measures, ComputeConfig(), grow(prepared, probed))
    fed.clear()  # of what was tried on it
    observe(reading, prepared, GeometryPlan.of(measures), origin)
    assert plan["forward_tokens"] == sum(fed) < sum(len(one.ids) for probe in prepared for one in probe.encoded)
    assert (plan["checkpoints"], plan["to_measure"], plan["download_bytes"]) == (4, 4, 0)
    assert all(seconds > 0 for seconds in plan["seconds"].values())
    assert ("linear probe" in plan["seconds"]) == probed
    assert plan["total_seconds"] == pytest.approx(4 * sum(plan["seconds"].values()))
    assert plan["memory_peak_bytes"] > 4 * plan["parameters"]


def bytes_of(series: Path, step: int) -> int:
    wanted = ("model.safetensors", "config.json", "training.json", "tokenizer.json", "tokenizer_config.json")
    return sum((series / f"step{step}" / name).stat().st_size for name in wanted)


def test_bytes_and_disk_are_those_of_the_hub_and_no_weights_are_fetched(series: Path, tmp_path: Path) -> None:
    sizes = [bytes_of(series, step) for step in STEPS]
    budget = max(sizes) + 10
    asked = [
        ["--set", "fetch.ahead=1"],
        ["--disk-budget", f"{budget}B"],
        ["--keep", "--audit-values"],
        ["--disk-budget", "1KB"],
    ]
    with LoopbackHub(serve_folder(series, "test/a")) as hub:
        (code, plan, _), within, kept, (refused, _, error) = from_hub(hub, tmp_path, asked)
        assert [code, within[0], kept[0], refused] == [0, 0, 0, 2]
        assert plan["download_bytes"] == sum(sizes)
        assert plan["largest_bytes"] == max(sizes)
        assert plan["disk_peak_bytes"] == max(a + b for a, b in itertools.pairwise(sizes))
        assert plan["pace_bytes_per_second"] == pytest.approx(sum(sizes) / plan["total_seconds"])
        assert within[1]["disk_peak_bytes"] == budget
        assert kept[1]["disk_peak_bytes"] == sum(sizes)
        assert (plan["audit_bytes"], kept[1]["audit_bytes"]) == (0, most_bytes(len(STEPS)))
        assert "below the largest checkpoint's" in error
        assert not [r for r in hub.requests if r.method == "GET" and r.path.endswith(".safetensors")]
    assert not (tmp_path / "run").exists()


def from_hub(hub: LoopbackHub, tmp_path: Path, asked: list[list[str]]) -> list[tuple[int, Any, str]]:
    """Return exit code, plan and errors of each."""
    words = ["plan", "test/a", "--out", str(tmp_path / "run"), *FEW, "--json", "--quiet"]
    found = [command(hub, tmp_path / "cache", *words, *arguments) for arguments in asked]
    return [(one.returncode, json.loads(one.stdout or "null"), one.stderr) for one in found]


def test_what_does_not_fit_is_said(
    series: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = SimpleNamespace(available=10**6)
    monkeypatch.setattr("pythiageo.estimate.plan.psutil.virtual_memory", lambda: small)
    assert cli(["plan", str(series), *FEW, "--quiet"]) == 1
    shown = capsys.readouterr()
    assert "does not fit this machine: it needs" in shown.err
    assert "of memory, and 0.0 GB are free" in shown.err
    assert "peak memory" in shown.out


def test_linear_probes_are_priced_by_the_fits_of_a_run(series: Path) -> None:
    config = AnalyzeConfig(
        name="t",
        target="t",
        probes=ProbeConfig(tasks=("ADD", "COPY"), score_examples=2, geometry_examples=100),
        measures=MeasureConfig(linear_probe=LinearProbeConfig()),
    )
    folder = series / "step10"
    prepared = prepare(choose_probes(config.probes), FileTokenizer(folder), None)
    priced = Trial(config, ModelShape.read(folder, "t"), prepared, folder).time_linear_probe(LinearProbeConfig())
    reading = Reading.of(BridgeReader(open_folder(folder, "t").model, folder), config.measures, config.compute)
    origin = Origin("r", "s", "naturalistic", "x", None, 0, None, None)
    geometry = [probe for probe in prepared if probe.probe.purpose == GEOMETRY]
    states = [(probe, list(reading.states(probe))) for probe in geometry]
    begun = time.perf_counter()
    for probe, sites in states:
        for _, found in sites:
            list(LinearProbe(LinearProbeConfig(), reading, probe, origin, {}, None).rows(found.states))
    # the order of magnitude: solvers take more steps over one kind of states than another, and machines are shared
    assert 0.1 < priced / (time.perf_counter() - begun) < 10


@pytest.mark.parametrize(
    ("measures", "count"),
    [({}, 4), ({"layers": "0"}, 1), ({"layers": "last"}, 2), ({"sites": ["blocks.*.hook_mlp_out"]}, 3)],
)
def test_sites_are_counted(series: Path, measures: dict[str, Any], count: int) -> None:
    config = AnalyzeConfig(name="t", target="t", measures=MeasureConfig(**measures))
    assert count_sites(config, ModelShape.read(series / "step0", "t")) == count


def test_landscape_measures_are_priced_where_they_are_taken(series: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dear = ("--measures", "rankme,gradient_rank,hessian,llc", "--set", 'measures.landscape.steps="0,20"')
    plan = planned(capsys, str(series), *dear)
    assert (plan["landscape_checkpoints"], planned(capsys, str(series))["landscape_checkpoints"]) == (2, 0)
    assert plan["landscape_seconds"] > 0
    assert plan["total_seconds"] == pytest.approx(4 * plan["checkpoint_seconds"] + 2 * plan["landscape_seconds"])
    assert cli(["plan", str(series), *FEW, "--quiet", *dear]) == 0
    assert "2 checkpoints, about" in capsys.readouterr().out


def test_wrong_layers_are_one_sentence(series: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["plan", str(series), "--layers", "7", *FEW, "--quiet"]) == 2
    assert "not within the model's layers" in capsys.readouterr().err


def test_a_sample_is_timed_without_what_does_not_count_and_scaled() -> None:
    seen: list[int] = []

    def work(item: int) -> float:
        seen.append(item)
        time.sleep(0.02 * item)
        return 0.01 * item

    timed = time_items([1, 2, 3], work, warm_up=True)
    assert seen[0] == 1
    assert sorted(item for item, _ in timed) == [1, 2, 3]
    assert scale(timed, float, 60.0) == pytest.approx(0.6, rel=0.3)
    assert len(time_items([1, 2, 3], work, most=0.0)) == 1
    assert scale([], float, 60.0) == 0.0


@pytest.mark.parametrize(
    ("costs", "threads", "done"),
    [([4, 4, 4, 2], 1, 14), ([4, 4, 4, 2], 2, 8), ([4, 4, 4], 2, 8), ([1, 1, 6], 3, 6), ([], 2, 0)],
)
def test_pieces_are_done_when_the_last_thread_is(costs: list[float], threads: int, done: float) -> None:
    assert finish(costs, threads) == done


def test_threads_wait_for_the_last_passes_of_a_task(series: Path) -> None:
    """Of three tasks of one pass each two threads lose a whole pass, two thirds of it beside sites; one loses none."""
    folder, tasks = series / "step0", ("ADD", "MUL", "CMP")
    for threads, waiting in ((1, (0.0, 0.0)), (2, (1.0, 2 / 3))):
        config = AnalyzeConfig(
            name="t",
            target="t",
            probes=ProbeConfig(tasks=tasks, score_examples=1, geometry_examples=1),
            compute=ComputeConfig(threads=threads),
        )
        prepared = prepare(choose_probes(config.probes), FileTokenizer(folder), None)
        trial = Trial(config, ModelShape.read(folder, "t"), prepared, folder)
        assert len(trial.passes.all) == 3
        assert trial.passes.idle == pytest.approx(waiting, abs=0.2)  # they are not equally long


@pytest.mark.parametrize("count", [1, 2, 3, 7, 12, 100])
def test_beginnings_are_spread_over_the_whole(count: int) -> None:
    order = list(spread(range(count)))
    assert sorted(order) == list(range(count))
    if count >= 7:
        first = sorted(order[: count // 2 + 1])
        assert max(b - a for a, b in itertools.pairwise(first)) <= 4


def test_workers_share_the_time(series: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(capsys, str(series), "--workers", "3")
    assert plan["total_seconds"] == pytest.approx(2 * plan["checkpoint_seconds"])  # one of them has two of the four
    assert cli(["plan", str(series), *FEW, "--quiet", "--workers", "3"]) == 0
    shown = capsys.readouterr().out
    assert "on 3 workers" in shown
    assert "peak memory, a worker" in shown
