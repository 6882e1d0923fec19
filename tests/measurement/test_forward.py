"""Reading within memory, and the choice of sites: by fakes whose answers are known, and through TransformerLens."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pythiageo.cli.app import run as cli
from pythiageo.compute.allocator import _glibc
from pythiageo.compute.device import resolve_device
from pythiageo.config.tables import ComputeConfig, MeasureConfig
from pythiageo.errors import MachineError, UserError
from pythiageo.lens import BridgeReader
from pythiageo.measurement.forward import Reading
from pythiageo.measurement.probe_sets import GEOMETRY, Prepared, Probe, prepare
from pythiageo.measurement.sites import choose_sites, parse_layers
from pythiageo.observations import read_observations
from pythiageo.probes.encoding import CharacterTokenizer
from pythiageo.probes.probeset import make_probe_set
from pythiageo.probes.task import MIXED, load_tasks
from pythiageo.series.files.load import open_folder
from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.trainable import ARCHITECTURES, write_checkpoint

LAYERS, WIDTH, VOCAB = 3, 8, 41


class Counter:
    """A model whose state at a site is (token, position, layer), and that runs out of memory above ``most`` tokens."""

    def __init__(self, most: int = 10**9, error: Exception | None = None) -> None:
        self.most = most
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")
        self.passes: list[tuple[int, int]] = []

    def sites(self) -> dict[str, int]:
        return {f"blocks.{layer}.hook_resid_post": layer for layer in range(LAYERS)}

    def hooks(self) -> dict[str, str]:
        return {site: site.replace("hook_resid_post", "hook_out") for site in self.sites()}

    def read(
        self, ids: Int[Tensor, "example position"], sites: list[str], logit_positions: Int[Tensor, " scored"] | None
    ) -> tuple[dict[str, Float[Tensor, "example position width"]], Float[Tensor, "example scored vocab"] | None]:
        if ids.numel() > self.most:
            raise self.error
        self.passes.append((ids.numel(), len(sites)))
        position = torch.arange(ids.shape[1]).expand_as(ids)
        state = torch.stack([ids, position], -1).float()
        states = {
            site: torch.cat([state, torch.full((*ids.shape, WIDTH - 2), float(self.sites()[site]))], -1)
            for site in sites
        }
        logits = torch.eye(VOCAB)[ids] * 5
        return states, None if logit_positions is None else logits[:, logit_positions]


@pytest.fixture(scope="module")
def probe() -> Prepared:
    task = load_tasks(None)["ADD"]
    return prepare([Probe(make_probe_set(task, MIXED, 30, 0), GEOMETRY)], CharacterTokenizer(), None)[0]


def everything(reader: Counter, probe: Prepared, tokens: int = 8192, state_bytes: int = 2**30) -> dict[str, Tensor]:
    reading = Reading(reader, {**reader.sites()}, tokens, state_bytes)
    return {site: found.states for site, found in reading.states(probe)}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert list(first) == list(second)
    assert all(torch.equal(first[site], second[site]) for site in first)


def test_states_lie_in_the_order_of_examples_and_positions(probe: Prepared) -> None:
    states = everything(Counter(), probe)
    assert list(states) == [f"blocks.{layer}.hook_resid_post" for layer in range(LAYERS)]
    ids = torch.tensor([token for example in probe.encoded for token in example.ids]).float()
    positions = torch.tensor([p for example in probe.encoded for p in range(len(example.ids))]).float()
    for layer, values in enumerate(states.values()):
        assert torch.equal(values[:, 0], ids)
        assert torch.equal(values[:, 1], positions)
        assert torch.equal(values[:, 2], torch.full_like(ids, layer))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_passes_shrink_when_memory_runs_out_and_nothing_is_lost(probe: Prepared, error: Exception) -> None:
    whole, small = Counter(), Counter(most=40, error=error)
    same(everything(whole, probe), everything(small, probe))
    assert max(tokens for tokens, _ in small.passes) <= 40
    first, second = (Reading(reader, {}, 8192, 2**30).predictions(probe.encoded) for reader in (whole, small))
    assert torch.equal(first.log_prob, second.log_prob)
    assert torch.equal(first.hit, second.hit)


def test_the_bound_stays_small_once_memory_ran_out(probe: Prepared) -> None:
    reader = Counter(most=40)
    reading = Reading(reader, {**reader.sites()}, 8192, 2**30)
    failures = []
    read = reader.read

    def counting(*arguments: object) -> object:
        try:
            return read(*arguments)  # type: ignore[arg-type]
        except torch.OutOfMemoryError:
            failures.append(1)
            raise

    reader.read = counting  # type: ignore[method-assign, assignment]
    dict(reading.states(probe))
    first = len(failures)
    dict(reading.states(probe))
    assert first > 0
    assert len(failures) == first


def test_an_example_that_fits_nowhere_is_told(probe: Prepared) -> None:
    with pytest.raises(MachineError, match="memory runs out over one single example"):
        everything(Counter(most=2), probe)


def test_other_errors_are_not_taken_for_memory(probe: Prepared) -> None:
    with pytest.raises(RuntimeError, match="shape mismatch"):
        everything(Counter(most=2, error=RuntimeError("shape mismatch")), probe)


@pytest.mark.parametrize("sites_that_fit", [0, 1, 2, 3])
def test_states_beyond_the_bound_are_read_in_several_passes(probe: Prepared, sites_that_fit: int) -> None:
    tokens = sum(len(example.ids) for example in probe.encoded)
    reader = Counter()
    bounded = everything(reader, probe, state_bytes=sites_that_fit * tokens * WIDTH * 4 + 1)
    together = max(1, sites_that_fit)
    assert sum(count for count, _ in reader.passes) == tokens * -(-LAYERS // together)
    same(everything(Counter(), probe), bounded)


@pytest.mark.parametrize(
    ("text", "layers"),
    [("all", None), ("0", {0}), ("last", {5}), ("0,3-5", {0, 3, 4, 5}), ("4-last, 1", {1, 4, 5})],
)
def test_layers(text: str, layers: set[int] | None) -> None:
    assert parse_layers(text, 6) == layers


@pytest.mark.parametrize("text", ["", "x", "6", "3-1", "0,,1", "-1", "2-6"])
def test_wrong_layers_are_one_sentence(text: str) -> None:
    with pytest.raises(UserError, match="layers"):
        parse_layers(text, 6)


def test_sites_by_pattern_come_once_and_in_order() -> None:
    reader = Counter()
    assert choose_sites(reader, ["*"], "1-last") == {
        "blocks.1.hook_resid_post": 1,
        "blocks.2.hook_resid_post": 2,
    }
    with pytest.raises(UserError, match=r"no site .* \(did you mean 'blocks.0.hook_resid_post'"):
        choose_sites(reader, ["blocks.0.hook_resid_pots"], "all")
    with pytest.raises(UserError, match="leave nothing"):
        choose_sites(reader, ["blocks.0.*"], "last")


def test_devices() -> None:
    assert resolve_device("cpu") == "cpu"
    if not torch.cuda.is_available():
        assert resolve_device("auto") == "cpu"
        with pytest.raises(UserError, match="no GPU that torch can use"):
            resolve_device("cuda:1")


@pytest.fixture(scope="module", params=["gpt_neox", "gpt2"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "step7"
    # three heads: as many as positions in one of the passes that find out what a hook gives
    trainable = ARCHITECTURES[request.param](Shape(2, 24, 3, 96, 48, VOCAB, True), seed=3)
    write_checkpoint(folder, trainable, 7, tokens=7)
    return folder


def open_reader(checkpoint: Path, dtype: torch.dtype = torch.float32) -> BridgeReader:
    return BridgeReader(open_folder(checkpoint, "t").model, checkpoint, dtype=dtype)


def test_every_hook_with_a_state_a_position_can_be_read(checkpoint: Path) -> None:
    reader = open_reader(checkpoint)
    hooks = reader.hooks()
    assert {"blocks.0.hook_mlp_out", "blocks.1.attn.hook_out", "blocks.1.hook_resid_pre", "hook_embed"} <= set(hooks)
    assert not {name for name in hooks if "pattern" in name or "scores" in name or "rot_" in name}
    ids = torch.randint(0, VOCAB, (2, 5), generator=torch.Generator().manual_seed(0))
    states, _ = reader.read(ids, list(hooks), None)
    assert all(values.shape[:2] == (2, 5) and values.ndim == 3 for values in states.values())
    assert torch.equal(states["blocks.0.hook_resid_post"], states["blocks.1.hook_resid_pre"])


def test_mlp_and_attention_add_up_to_the_residual_stream(checkpoint: Path) -> None:
    reader = open_reader(checkpoint)
    ids = torch.randint(0, VOCAB, (3, 7), generator=torch.Generator().manual_seed(0))
    parts = ["hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post"]
    for layer in range(2):
        states, _ = reader.read(ids, [f"blocks.{layer}.{part}" for part in parts], None)
        before, attention, mlp, after = (states[f"blocks.{layer}.{part}"] for part in parts)
        torch.testing.assert_close(before + attention + mlp, after)


def test_stopping_early_changes_nothing(checkpoint: Path) -> None:
    reader = open_reader(checkpoint)
    ids = torch.randint(0, VOCAB, (3, 7), generator=torch.Generator().manual_seed(0))
    sites = list(reader.sites())
    whole, _ = reader.read(ids, sites, None)
    first, _ = reader.read(ids, sites[:1], None)
    assert torch.equal(whole[sites[0]], first[sites[0]])
    assert list(first) == sites[:1]


def test_states_are_those_of_plain_transformers_though_joint_weights_are_gone(checkpoint: Path) -> None:
    plain = open_folder(checkpoint, "t").model
    ids = torch.randint(0, VOCAB, (3, 7), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = plain(ids, output_hidden_states=True)
    weights = sum(parameter.numel() for parameter in plain.parameters())
    reader = open_reader(checkpoint)
    states, logits = reader.read(ids, list(reader.sites()), torch.arange(7))
    torch.testing.assert_close(states["blocks.0.hook_resid_post"], expected.hidden_states[1])
    torch.testing.assert_close(states["ln_final.hook_out"], expected.hidden_states[-1])
    torch.testing.assert_close(logits, expected.logits)
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in reader._bridge.parameters()}
    assert sum(storages.values()) == 4 * weights


def test_bfloat16_is_near_and_is_not_float32(checkpoint: Path) -> None:
    ids = torch.randint(0, VOCAB, (3, 7), generator=torch.Generator().manual_seed(0))
    site = "ln_final.hook_out"
    exact = open_reader(checkpoint).read(ids, [site], None)[0][site]
    rounded = open_reader(checkpoint, torch.bfloat16).read(ids, [site], None)[0][site]
    error = float((exact - rounded).norm() / exact.norm())
    assert rounded.dtype == torch.float32
    assert 1e-4 < error < 0.05


def test_sites_and_layers_from_the_command_line(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["analyze", str(checkpoint.parent), "--out", str(out), "--tasks", "ADD", "--quiet",
                 "--set", "probes.score_examples=4", "--set", "probes.geometry_examples=9", "--dtype", "bfloat16",
                 "--device", "cpu", "--readouts", "answer/centred"]  # fmt: skip
    assert cli([*arguments, "--sites", "blocks.*.hook_mlp_out,blocks.*.attn.hook_z", "--layers", "last"]) == 0
    table = read_observations(out)
    found = table.filter(table["site"].is_not_null()).select("site", "layer").unique().sort("site").rows()
    assert found == [("blocks.1.attn.hook_z", 1), ("blocks.1.hook_mlp_out", 1)]
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["status"], set(line["seconds"])) for line in log] == [(7, "ok", {"load", "compute"})]
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["provenance"]["device"], manifest["provenance"]["dtype"]) == ("cpu", "bfloat16")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sites", "blocks.*.hook_mpl_out"], "no site 'blocks.*.hook_mpl_out'"),
        (["--sites", "blocks.0.attn.hook_pattern"], "no such hook gives a state a position"),
        (["--layers", "9"], "is not within the model's layers, 0 to 1"),
        (["--device", "tpu"], "device"),
        (["--dtype", "int8"], "dtype"),
        (["--set", "compute.state_memory=lots"], "expected a size such as 500MB"),
    ],
)
def test_wrong_sites_layers_and_devices_are_one_sentence(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli(["analyze", str(checkpoint.parent), "--out", str(tmp_path / "r"), "--tasks", "ADD", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_run_keeps_to_its_device(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    arguments = ["analyze", str(checkpoint.parent), "--out", str(out), "--tasks", "ADD", "--quiet",
                 "--set", "probes.score_examples=4", "--set", "probes.geometry_examples=9"]  # fmt: skip
    assert cli(arguments) == 0
    monkeypatch.setattr("pythiageo.engines.resolve_device", lambda _: "cuda:0")
    assert cli([*arguments, "--resume"]) == 2


def test_reading_takes_its_bounds_from_the_config() -> None:
    reading = Reading.of(Counter(), MeasureConfig(layers="0"), ComputeConfig(state_memory="2KB"))
    assert reading.sites == {"blocks.0.hook_resid_post": 0}
    assert ComputeConfig(state_memory="2KB").state_bytes == 2000


def test_memory_of_weights_goes_back_to_the_system() -> None:
    """Blocks freed between blocks that stay: by default glibc would keep them."""
    code = """
import sys, psutil, torch
from pythiageo.compute.allocator import loading
def blocks(size, count):
    return [torch.ones(size // 4) for _ in range(count)]
del_me = blocks(30 * 2**20, 2); del del_me  # freeing teaches glibc its high threshold
own = psutil.Process()
before = own.memory_info().rss
with loading():
    kept, gone = [], []
    for _ in range(100):
        kept += blocks(2**18, 1); gone += blocks(3 * 2**20, 1)
    del gone
print((own.memory_info().rss - before) / 2**20)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if _glibc() is None:
        pytest.skip("not a system with glibc")
    assert float(done.stdout) < 100  # 25 MiB are kept, 300 were freed
