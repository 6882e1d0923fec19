"""Steps, fingerprints, opening checkpoints, folders, and the Hub through its real client."""

from __future__ import annotations

import itertools
import json
import math
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onhub import using
from safetensors.torch import load_file, save_file
from sharded import shard

from pythiageo.errors import CheckpointError, PythiageoError, UserError
from pythiageo.series import open_series
from pythiageo.series.files.fingerprint import combine, describe_nonfinite, examine, examine_all
from pythiageo.series.files.load import open_folder
from pythiageo.series.hub.loopback import Fault, LoopbackHub, Request, serve_folder
from pythiageo.series.layout import Naming
from pythiageo.series.names import StepNames, parse_step
from pythiageo.series.sources.folder import FolderSeries
from pythiageo.series.sources.hub import HubSeries
from pythiageo.series.steps import PYTHIA_STEPS, select
from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.trainable import ARCHITECTURES, write_checkpoint

# steps


def test_pythias_grid() -> None:
    assert len(PYTHIA_STEPS) == 154
    assert PYTHIA_STEPS[:12] == (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
    assert PYTHIA_STEPS[-1] == 143_000


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("step1000", 1000),
        ("checkpoint-500", 500),
        ("stage1-step1000-tokens3B", 1000),
        ("step_7", 7),
        ("main", None),
        ("step", None),
        ("step1000-old", None),
        ("mystep5", None),
    ],
)
def test_step_names(name: str, step: int | None) -> None:
    assert parse_step(name) == step


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0,1,2,512,1000", [0, 1, 2, 512, 1000]),
        ("1000-5000:2000", [1000, 3000, 5000]),
        ("100-2000", [128, 256, 512, 1000, 2000]),
        ("every:50000", [0, 50000, 100000]),
        ("512, 1,512", [1, 512]),
        ("every:70000,1", [0, 1, 70000, 140000]),
        ("log:1", [143000]),
        ("log:2", [0, 143000]),
    ],
)
def test_selections(text: str, expected: list[int]) -> None:
    assert select(text, PYTHIA_STEPS) == expected


def test_all_and_more_than_there_are() -> None:
    assert select("all", PYTHIA_STEPS) == list(PYTHIA_STEPS)
    assert select("log:999", PYTHIA_STEPS) == list(PYTHIA_STEPS)


@given(st.sets(st.integers(0, 10**6), min_size=1, max_size=60), st.integers(1, 70))
def test_log_spreads_exactly_as_many_as_asked(steps: set[int], count: int) -> None:
    chosen = select(f"log:{count}", sorted(steps))
    assert len(chosen) == min(count, len(steps))
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= steps
    assert chosen[-1] == max(steps)
    if count > 1:
        assert chosen[0] == min(steps)


def test_log_is_even_in_the_logarithm() -> None:
    chosen = select("log:8", list(range(1001)))
    gaps = [math.log1p(b) - math.log1p(a) for a, b in itertools.pairwise(chosen)]
    assert max(gaps) - min(gaps) < 0.45


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1001", r"step 1001 is not there; the nearest are 512, 1000 of 0, 1, 2 \.\. 143000 \(154 steps\)"),
        ("1000-2000:300", r"step 1300 is not there, nor are 2 others"),
        ("sometimes", "cannot read 'sometimes'; expected all, log:N"),
        ("log:0", "expected a number of at least 1"),
        ("5000-1000", "ends before it begins"),
        ("130-200", "choose none of the 154 steps"),
        ("", "cannot read ''"),
        ("0-99999999999:1", "has 100,000,000,000 steps"),
    ],
)
def test_wrong_selections_are_named(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        select(text, PYTHIA_STEPS)


# fingerprints


def fingerprint(tensors: dict[str, torch.Tensor]) -> str:
    return combine(examine_all(tensors))


def find_nonfinite(tensors: dict[str, torch.Tensor]) -> str | None:
    return describe_nonfinite(examine_all(tensors))


TENSORS = st.dictionaries(
    st.text(min_size=1, max_size=5),
    st.builds(
        lambda shape, seed, dtype: torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype),
        st.lists(st.integers(0, 3), max_size=3),
        st.integers(0, 99),
        st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]),
    ),
    min_size=1,
    max_size=4,
)


@given(TENSORS)
def test_a_fingerprint_is_of_the_tensors_not_of_their_order(tensors: dict[str, torch.Tensor]) -> None:
    backwards = dict(reversed(list(tensors.items())))
    strided = {name: torch.stack([t, t], dim=-1)[..., 0] for name, t in tensors.items()}
    assert fingerprint(tensors) == fingerprint(backwards) == fingerprint(strided)


@given(TENSORS, st.data())
def test_a_fingerprint_changes_with_name_dtype_shape_and_bit(
    tensors: dict[str, torch.Tensor], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(tensors)))
    tensor = tensors[name]
    others = {k: v for k, v in tensors.items() if k != name}
    variants = [{**others, name + "'": tensor}, {**others, name: tensor[None]}]
    variants.append({**others, name: tensor.to(torch.float32 if tensor.dtype == torch.float64 else torch.float64)})
    if tensor.numel():
        flipped = tensor.clone().reshape(-1)
        flipped.view(torch.uint8)[0] ^= 1
        variants.append({**others, name: flipped.reshape(tensor.shape)})
    prints = [fingerprint(tensors), *map(fingerprint, variants)]
    assert len(set(prints)) == len(prints)


def test_nonfinite_values_are_counted_and_placed() -> None:
    tensors = {"b": torch.tensor([1.0, math.nan]), "a": torch.tensor([math.inf, -math.inf]), "c": torch.arange(3)}
    assert find_nonfinite(tensors) == "weights hold NaN or infinity: 3 values in a and 1 other tensors"
    assert find_nonfinite({"c": torch.arange(3), "d": torch.ones(2)}) is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn])
def test_one_nonfinite_value_is_seen_wherever_it_stands(dtype: torch.dtype) -> None:
    """In vectors of the CPU's registers, and in what is left behind them."""
    for size in (1, 7, 16, 33):
        for place in range(size):
            for value in (math.nan, math.inf, -math.inf) if dtype.itemsize > 1 else (math.nan,):
                values = torch.arange(size).float()
                values[place] = value
                facts = examine("t", values.to(dtype))
                assert facts.nonfinite == 1, (size, place, value)


# opening


@pytest.fixture(scope="module")
def series_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two architectures, three steps each."""
    root = tmp_path_factory.mktemp("series")
    for name, architecture in ARCHITECTURES.items():
        for step in (0, 1, 10):
            trainable = architecture(Shape(2, 32, 2, 64, 48, 41, True), seed=step)
            write_checkpoint(root / name / f"step{step}", trainable, step, tokens=step * 100)
    return root


@pytest.fixture
def checkpoint(series_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(series_folder / "gpt_neox" / "step1", tmp_path / "step1"))


def test_the_fingerprint_is_independent_of_the_file_format(checkpoint: Path) -> None:
    first = open_folder(checkpoint, "step1")
    assert first.architecture == "GPTNeoXForCausalLM"
    assert not first.model.training
    assert {p.dtype for p in first.model.parameters()} == {torch.float32}
    tensors = load_file(checkpoint / "model.safetensors")
    torch.save(tensors, checkpoint / "pytorch_model.bin")
    (checkpoint / "model.safetensors").unlink()
    assert open_folder(checkpoint, "step1").weight_sha == first.weight_sha == fingerprint(tensors)


def test_half_precision_checkpoints_are_read_in_float32(checkpoint: Path) -> None:
    tensors = {k: v.half() for k, v in load_file(checkpoint / "model.safetensors").items()}
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    model = open_folder(checkpoint, "step1").model
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    name = "gpt_neox.layers.0.mlp.dense_h_to_4h.weight"
    assert torch.equal(dict(model.named_parameters())[name], tensors[name].float())


def test_shards_are_read_together(checkpoint: Path) -> None:
    whole = open_folder(checkpoint, "step1").weight_sha
    shard(checkpoint)
    assert open_folder(checkpoint, "step1").weight_sha == whole
    (checkpoint / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"step1: the shard model-00002-of-00002\.safetensors .* is missing"):
        open_folder(checkpoint, "step1")


class Malicious:
    """Runs code when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/pythiageo-was-here",)


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _drop_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["gpt_neox.layers.1.mlp.dense_h_to_4h.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _other_shape(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["embed_out.weight"] = torch.zeros(50, 32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _change_config(**values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **values}))

    return change


def _malicious_bin(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Malicious()}))


def _twice(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = "embed_out.weight"
    save_file(tensors, folder / "model-00001-of-00002.safetensors", metadata={"format": "pt"})
    save_file({name: tensors[name] + 1}, folder / "model-00002-of-00002.safetensors", metadata={"format": "pt"})
    shards = dict.fromkeys(tensors, "model-00001-of-00002.safetensors") | {name: "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (folder / "model.safetensors").unlink()


def _index_outside(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    index = {"weight_map": {"embed_out.weight": "../outside.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, r"model\.safetensors is damaged or cut short"),
        (_drop_tensor, r"the weights lack gpt_neox\.layers\.1\.mlp\.dense_h_to_4h\.weight"),
        (_other_shape, r"the weights have another shape than the config says for (embed_out|lm_head)\.weight"),
        (_change_config(num_hidden_layers=1), r"the config's model has no place for gpt_neox\.layers\.1\."),
        (_twice, r"embed_out\.weight"),
        (_change_config(auto_map={"AutoModelForCausalLM": "evil.Model"}), "asks for code from the repository"),
        (_change_config(model_type="no_such_model"), "transformers cannot open this no_such_model checkpoint"),
        (_malicious_bin, r"pytorch_model\.bin is not a plain tensor file"),
        (_index_outside, "names a file outside the checkpoint"),
        (lambda folder: (folder / "config.json").unlink(), r"not a checkpoint: expected a config\.json and weights"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), r"config\.json must hold a JSON object"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"expected model\.safetensors or pytorch_model\.bin"),
    ],
)
def test_a_damaged_checkpoint_is_one_sentence(checkpoint: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(checkpoint)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_folder(checkpoint, "step1")
    assert caught.value.status == "unreadable"
    assert "step1" in str(caught.value)
    assert not Path("/tmp/pythiageo-was-here").exists()


BUFFERS = {
    "gpt_neox": ("gpt_neox.layers.0.attention.bias", "gpt_neox.layers.0.attention.masked_bias",
                 "gpt_neox.layers.1.attention.rotary_emb.inv_freq"),
    "gpt2": ("transformer.h.0.attn.bias", "transformer.h.1.attn.masked_bias"),
}  # fmt: skip


@pytest.mark.parametrize("architecture", BUFFERS)
def test_constants_that_older_releases_saved_are_no_obstacle(
    series_folder: Path, tmp_path: Path, architecture: str
) -> None:
    folder = tmp_path / "step1"
    shutil.copytree(series_folder / architecture / "step1", folder)
    tensors = load_file(folder / "model.safetensors")
    extra = {name: torch.ones(3) for name in BUFFERS[architecture]}
    save_file(tensors | extra, folder / "model.safetensors", metadata={"format": "pt"})
    before = open_folder(series_folder / architecture / "step1", "t").model.state_dict()
    after = open_folder(folder, "t").model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_values_beyond_float32_are_counted(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["embed_out.weight"] = tensors["embed_out.weight"].double()
    tensors["embed_out.weight"][0, 0] = 1e300
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    reason = open_folder(checkpoint, "t").nonfinite
    assert reason is not None
    assert "embed_out.weight" in reason


# folders


def test_a_trainers_last_weights_beside_its_checkpoints_are_no_step(series_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(series_folder / "gpt2" / "step10", tmp_path / "out")
    for step in (0, 1):
        shutil.copytree(series_folder / "gpt2" / f"step{step}", tmp_path / "out" / f"checkpoint-{step}")
    assert FolderSeries(tmp_path / "out").steps() == [0, 1]


def test_a_lone_folder_is_at_the_step_it_says(series_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(series_folder / "gpt2" / "step10", tmp_path / "final")
    assert FolderSeries(tmp_path / "final").steps() == [10]
    (tmp_path / "final" / "training.json").write_text('{"step": true, "tokens": true}')
    series = FolderSeries(tmp_path / "final")
    assert [(one.step, one.tokens) for one in series.checkpoints([0])] == [(0, None)]


@pytest.mark.parametrize(
    ("pattern", "name", "named"),
    [
        (None, "step1000", (1000, None)),
        (None, "stage1-step1000-tokens3B", (1000, 3 * 10**9)),
        (None, "stage1-step500-tokens1.5T", (500, 1_500 * 10**9)),
        (None, "stage2-ingredient1-step9-tokens3B", (9, 3 * 10**9)),
        (None, "step9-of-another", None),
        (r"stage2-in1-step(?P<step>\d+)-tokens(?P<tokens>.*)", "stage2-in1-step9-tokens3B", (9, 3 * 10**9)),
        (r"ckpt_(?P<step>\d+)k?", "ckpt_7k", (7, None)),
        (r"ckpt_(?P<step>\d+)", "step7", None),
    ],
)  # fmt: skip
def test_names_by_pattern(pattern: str | None, name: str, named: tuple[int, int | None] | None) -> None:
    found = StepNames(pattern).parse(name)
    assert (found and found[:2]) == named


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("step(", "not a regular expression"), (r"step(\d+)", r"expected a group \(\?P<step>")],
)
def test_wrong_patterns_are_one_sentence(pattern: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        StepNames(pattern)
    with pytest.raises(UserError, match="which is no number"):
        StepNames(r"(?P<step>.*)").parse("main")


def test_folders_by_pattern(series_folder: Path, tmp_path: Path) -> None:
    for stage in (1, 2):
        shutil.copytree(series_folder / "gpt2" / "step1", tmp_path / f"stage{stage}-step7-tokens{stage}B")
    (tmp_path / "stage2-step7-tokens2B" / "training.json").unlink()
    with pytest.raises(UserError, match=r"are both step 7: choose one kind with --step-pattern"):
        open_series(str(tmp_path), Naming(r"stage\d-step(?P<step>\d+)-tokens(?P<tokens>\d+B)"))
    series = open_series(str(tmp_path), Naming(r"stage2-step(?P<step>\d+)-tokens(?P<tokens>\d+B)"))
    assert [(one.step, one.tokens) for one in series.checkpoints([7])] == [(7, 2 * 10**9)]


def test_stages_are_not_one_series(tmp_path: Path) -> None:
    for name in ("stage1-step1000-tokens3B", "stage1-step2000-tokens5B", "stage2-step3000-tokens7B", "main"):
        (tmp_path / name).mkdir()
    series = FolderSeries(tmp_path)
    assert series.steps() == [1000, 2000]
    assert series.remarks == (
        "of its folders, 1 of stage2 is left out (stage2-step3000-tokens7B): --stage stage2 reads them",
    )
    assert FolderSeries(tmp_path, Naming(stages=("stage2",))).steps() == [3000]
    assert FolderSeries(tmp_path, Naming("stage1-step(?P<step>[0-9]+).*")).steps() == [1000, 2000]


def test_the_studys_steps_by_name() -> None:
    assert select("billa-2.8b", PYTHIA_STEPS) == list(range(50_000, 80_001, 1000))
    assert select("0,billa-2.8b", [0, 1, 60_000, 90_000]) == [0, 60_000]


def test_folders_of_every_shape(series_folder: Path, tmp_path: Path) -> None:
    assert FolderSeries(series_folder / "gpt2").steps() == [0, 1, 10]
    run = tmp_path / "run"
    shutil.copytree(series_folder / "gpt2", run / "checkpoints")
    series = FolderSeries(run)
    assert (series.name, series.steps()) == ("run", [0, 1, 10])
    [only] = series.checkpoints([10])
    assert (only.step, only.tokens, only.label) == (10, 1000, "step10")
    assert FolderSeries(run / "checkpoints" / "step10").steps() == [10]
    shutil.copytree(run / "checkpoints" / "step10", run / "checkpoints" / "checkpoint-10")
    with pytest.raises(UserError, match="checkpoint-10 and step10 are both step 10"):
        FolderSeries(run)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no checkpoint: expected folders named by step"):
        FolderSeries(tmp_path / "empty")
    with pytest.raises(UserError, match="no such folder of checkpoints"):
        open_series(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no such folder here, and not a Hub repository's name"):
        open_series("nowhere")


def test_adding_a_checkpoint_source_takes_one_file(
    series_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pythiageo.series import sources as package

    (tmp_path / "mirror_example.py").write_text(
        "from pathlib import Path\n"
        "from pythiageo.series.sources.folder import FolderSeries\n"
        "def open_target(target, naming):\n"
        "    return FolderSeries(Path(target.removeprefix('mirror:'))) if target.startswith('mirror:') else None\n"
    )
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    try:
        assert open_series(f"mirror:{series_folder / 'gpt2'}").steps() == [0, 1, 10]
        assert open_series(str(series_folder / "gpt2")).steps() == [0, 1, 10]
    finally:
        sys.modules.pop("pythiageo.series.sources.mirror_example", None)


# the Hub, through the real client


def client(hub: LoopbackHub, cache: Path, repository: str, *steps: str) -> dict:
    result: dict = {}
    with using(hub, cache):
        try:
            series = HubSeries(repository)
            result["steps"] = series.steps()
            for one in series.checkpoints([int(step) for step in steps]):
                try:
                    opened = one.open()
                    result[str(one.step)] = [opened.weight_sha, one.tokens, one.label, opened.architecture]
                except PythiageoError as error:
                    result[str(one.step)] = f"{type(error).__name__}: {error}"
        except PythiageoError as error:
            result["error"] = f"{type(error).__name__}: {error}"
    return result


def test_the_real_client_fetches_by_revision(series_folder: Path, tmp_path: Path) -> None:
    both = {}
    for name in ("gpt2", "gpt_neox"):
        both |= serve_folder(series_folder / name, f"test/{name}")
    with LoopbackHub(both) as hub:
        for name in ("gpt2", "gpt_neox"):
            result = client(hub, tmp_path / "cache", f"test/{name}", "0", "10")
            assert result["steps"] == [0, 1, 10]
            for step in (0, 10):
                sha, tokens, label, architecture = result[str(step)]
                local = open_folder(series_folder / name / f"step{step}", "local")
                assert (sha, architecture) == (local.weight_sha, local.architecture)
                assert tokens == step * 100
                assert label == f"step{step}@{hub.find(f'test/{name}', f'step{step}').commit[:7]}"
        assert not any("step1/" in request.path for request in hub.requests)
        fetched = [r for r in hub.requests if r.method == "GET" and r.path.endswith("model.safetensors")]
        assert len(fetched) == 4
        # a second time everything is in the cache
        client(hub, tmp_path / "cache", "test/gpt2", "0", "10")
        again = [r for r in hub.requests if r.method == "GET" and r.path.endswith("model.safetensors")]
        assert len(again) == 4


def test_bin_only_revisions_are_read_as_they_are(series_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "series"
    shutil.copytree(series_folder / "gpt2", folder)
    torch.save(load_file(folder / "step1" / "model.safetensors"), folder / "step1" / "pytorch_model.bin")
    (folder / "step1" / "model.safetensors").unlink()
    with LoopbackHub(serve_folder(folder, "test/bin")) as hub:
        result = client(hub, tmp_path / "cache", "test/bin", "1")
        assert result["1"][0] == open_folder(series_folder / "gpt2" / "step1", "local").weight_sha
        # no other revision was asked for: transformers' conversion would come with a refs/pr
        assert not any("refs%2Fpr" in r.path or "refs/pr" in r.path or "discussions" in r.path for r in hub.requests)


def test_a_fault_of_one_revision_leaves_the_others(series_folder: Path, tmp_path: Path) -> None:
    commits = {}

    def fault(request: Request) -> Fault | None:
        if request.path.endswith(f"tree/{commits['step1']}"):
            return Fault(404, {"X-Error-Code": "RevisionNotFound"})
        if request.path.endswith(f"{commits['step10']}/model.safetensors") and request.method == "GET":
            return Fault(cut_after=1000)
        return None

    with LoopbackHub(serve_folder(series_folder / "gpt2", "test/a"), fault) as hub:
        commits |= {name: hub.find("test/a", name).commit for name in ("step1", "step10")}
        result = client(hub, tmp_path / "cache", "test/a", "0", "1", "10")
    assert result["0"][3] == "GPT2LMHeadModel"
    assert result["1"] == "CheckpointError: test/a: there is no revision step1"
    assert result["10"].startswith("CheckpointError: test/a step10: could not be fetched")


@pytest.mark.parametrize(
    ("repository", "fault", "message"),
    [
        ("test/none", None, "UserError: test/none: no such repository on the Hub, or a private one: then set HF_TOKEN"),
        ("test/a", Fault(401), "UserError: test/a: the Hub refuses access: set HF_TOKEN to the read token"),
        ("test/a", Fault(403, {"X-Error-Code": "GatedRepo"}), "UserError: test/a: access must be granted first"),
        ("test/a", Fault(500), "MachineError: test/a: the Hub cannot be reached"),
    ],
)
def test_a_hub_that_says_no_is_one_sentence(
    repository: str, fault: Fault | None, message: str, series_folder: Path, tmp_path: Path
) -> None:
    with LoopbackHub(serve_folder(series_folder / "gpt2", "test/a"), lambda _: fault) as hub:
        assert client(hub, tmp_path / "cache", repository)["error"].startswith(message)


def test_a_hub_that_is_not_there_is_one_sentence(series_folder: Path, tmp_path: Path) -> None:
    with LoopbackHub(serve_folder(series_folder / "gpt2", "test/a")) as hub:
        pass
    assert client(hub, tmp_path / "cache", "test/a")["error"].startswith("MachineError: test/a: the Hub cannot be")


def test_two_revisions_of_one_step_are_told(series_folder: Path, tmp_path: Path) -> None:
    step = series_folder / "gpt2" / "step1"
    with LoopbackHub({"test/a": {"step1": step, "step-1": step}}) as hub:
        error = client(hub, tmp_path / "cache", "test/a")["error"]
    assert "the revisions" not in error
    assert "step-1 and step1 are both step 1: choose one kind" in error


def test_checkpoints_that_are_commits_of_one_branch(series_folder: Path, tmp_path: Path) -> None:
    steps = {name: series_folder / "gpt2" / name for name in ("step0", "step1", "step10")}
    history = {
        "initial commit": "step1",
        "Training in progress, step 0": "step0",
        "Training in progress, step 1": "step1",
        "Training in progress, step 10": "step10",
    }
    revisions = {"main": steps["step10"], **steps}
    with LoopbackHub({"test/a": revisions}, commits={"test/a": history}) as hub:
        found = client(hub, tmp_path / "cache", "test/a", "10")
    assert found["steps"] == [0, 1, 10]
    assert found["10"][2].startswith("Training in progress, step 10@")


def test_what_cannot_be_read_of_a_known_series_is_one_sentence(series_folder: Path, tmp_path: Path) -> None:
    step = series_folder / "gpt2" / "step1"
    names = ["google/multiberts-seed_0-step_20k", "m-a-p/neo_7b"]
    with LoopbackHub({name: {"main": step} for name in names}) as hub:
        encoder, folders = (client(hub, tmp_path / "cache", name)["error"] for name in names)
    assert "MultiBERTs see later tokens: they are no causal language models" in encoder
    assert "m-a-p/neo_7b: none of its 1 revisions is named by step" in folders  # nor has it a folder that is


@pytest.mark.parametrize(
    ("repository", "named", "steps", "tokens"),
    [
        ("EleutherAI/pythia-160m-v0", ("step0", "step1000"), [0, 500], 1000 * 2**21),
        ("EleutherAI/pythia-1.4b-deduped-v0", ("step0", "step1000"), [0, 500], 1000 * 2**21),
        ("EleutherAI/pythia-70m-v0", ("step0", "step1000"), [0, 1000], 1000 * 2**21),
        ("EleutherAI/pythia-160m", ("step0", "step1000"), [0, 1000], 1000 * 2**21),
        ("test/olmo", ("stage1-step0-tokens0B", "stage1-step1000-tokens3B"), [0, 1000], 3 * 10**9),
        ("test/other", ("step0", "step1000"), [0, 1000], 1000),
    ],
)
def test_steps_and_tokens_of_every_kind_of_name(
    repository: str, named: tuple[str, str], steps: list[int], tokens: int, series_folder: Path, tmp_path: Path
) -> None:
    for name, step in zip(named, ("step0", "step10"), strict=True):
        shutil.copytree(series_folder / "gpt_neox" / step, tmp_path / name)
    with LoopbackHub({repository: {name: tmp_path / name for name in named}}) as hub:
        result = client(hub, tmp_path / "cache", repository, str(steps[1]))
    assert result["steps"] == steps
    assert result[str(steps[1])][1] == tokens


@pytest.mark.parametrize("failures", [1, 2])
def test_a_hub_that_is_busy_for_a_moment_is_asked_again(failures: int, series_folder: Path, tmp_path: Path) -> None:
    left = {"refs": failures, "model.safetensors": failures}

    def fault(request: Request) -> Fault | None:
        kind = request.path.rpartition("/")[2]
        if left.get(kind, 0) and request.method == "GET":
            left[kind] -= 1
            return Fault(503)
        return None

    with LoopbackHub(serve_folder(series_folder / "gpt2", "test/a"), fault) as hub:
        result = client(hub, tmp_path / "cache", "test/a", "10")
    assert left == {"refs": 0, "model.safetensors": 0}
    assert result["10"][3] == "GPT2LMHeadModel"


def test_a_repository_without_steps_is_told(series_folder: Path, tmp_path: Path) -> None:
    with LoopbackHub({"test/a": {"main": series_folder / "gpt2" / "step0"}}) as hub:
        error = client(hub, tmp_path / "cache", "test/a")["error"]
    assert error == "UserError: test/a: none of its 1 revisions is named by step, such as step1000"


def test_a_repository_without_main_is_told(series_folder: Path, tmp_path: Path) -> None:
    def fault(request: Request) -> Fault | None:
        return Fault(404, {"X-Error-Code": "RevisionNotFound"}) if "/commits/" in request.path else None

    with LoopbackHub({"test/a": {"odd": series_folder / "gpt2" / "step0"}}, fault) as hub:
        error = client(hub, tmp_path / "cache", "test/a")["error"]
    assert "none of its 1 revisions is named by step, such as step1000 (odd): --step-pattern" in error


def test_only_the_folders_own_files_are_served(series_folder: Path, tmp_path: Path) -> None:
    import urllib.error
    import urllib.request

    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    folder = tmp_path / "series" / "step0"
    shutil.copytree(series_folder / "gpt2" / "step0", folder)
    (folder / "link.txt").symlink_to(secret)
    with LoopbackHub(serve_folder(tmp_path / "series", "test/a")) as hub:
        for name in ("link.txt", "../../secret.txt", "%2e%2e/%2e%2e/secret.txt", "/etc/passwd"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"{hub.endpoint}/test/a/resolve/main/{name}", timeout=10)
        request = urllib.request.Request(f"{hub.endpoint}/test/a/resolve/main/config.json")
        request.add_header("Range", "bytes=5-")
        whole = (folder / "config.json").read_bytes()
        assert urllib.request.urlopen(request, timeout=10).read() == whole[5:]
    with pytest.raises(UserError, match="is not a repository's name"):
        LoopbackHub({"no-owner": {}})
