"""Prompts as prefix forests: the forest itself against plain Python, and what is read on it against plain passes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pythiageo.cli.app import run as cli
from pythiageo.compute.side_by_side import SideBySide
from pythiageo.config.tables import ComputeConfig, LinearProbeConfig, MeasureConfig
from pythiageo.errors import MachineError
from pythiageo.lens import BridgeReader
from pythiageo.measurement.check_forest import try_forest
from pythiageo.measurement.forest import Forest
from pythiageo.measurement.forward import Reading
from pythiageo.measurement.geometry import observe
from pythiageo.measurement.geometry_plan import GeometryPlan
from pythiageo.measurement.probe_sets import GEOMETRY, SCORE, Prepared, Probe, prepare
from pythiageo.measurement.reader import NODES
from pythiageo.measurement.result import Origin
from pythiageo.measurement.task_forest import grow
from pythiageo.observations import Observation, read_manifest
from pythiageo.probes import tokenizer
from pythiageo.probes.encoding import CharacterTokenizer
from pythiageo.probes.probeset import Example, ProbeSet, make_probe_set
from pythiageo.probes.task import MIXED, load_tasks
from pythiageo.synthetic.live import LiveReader
from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.trainable import ARCHITECTURES, write_checkpoint

VOCAB, CONTEXT = 41, 64
ORIGIN = Origin("r", "s", "naturalistic", "x", None, 0, None, None)
SAME = 1e-5
"""Two orders of summation in float32 move states by about 5e-7 of their size, and numbers of them by no more."""

PROMPTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7).map(tuple), min_size=1, max_size=12)


@given(PROMPTS, st.integers(1, 20), st.integers(1, 5))
def test_packs_hold_each_beginning_once_and_see_what_leads_to_it(
    prompts: list[tuple[int, ...]], most: int, most_scored: int
) -> None:
    beginnings = sorted({ids[:end] for ids in prompts for end in range(1, len(ids) + 1)})
    forest = Forest(prompts)
    assert len(forest) == len(beginnings)
    scored = np.array([node for node in range(len(forest)) if node % 2], dtype=np.int64)
    of_node = {int(node): ids[: k + 1] for ids in prompts for k, node in enumerate(forest.nodes(ids))}
    assert [of_node[node] for node in range(len(forest))] == beginnings
    first, done = 0, 0
    while first < forest.prompts:
        pack = forest.pack(first, most, scored, most_scored)
        assert pack.start == done
        new = [of_node[node] for node in range(pack.start, pack.stop)]
        here = [new[0][:end] for end in range(1, pack.before + 1)] + new
        assert pack.ids[0].tolist() == [beginning[-1] for beginning in here]
        assert pack.depths[0].tolist() == [len(beginning) - 1 for beginning in here]
        expected = [[below[: len(above)] == above for above in here] for below in here]
        assert pack.visible.tolist() == expected
        chosen, places = pack.among(scored)
        assert [here[place] for place in places] == [of_node[int(node)] for node in scored[chosen]]
        if pack.end > first + 1:  # else one prompt is more than fits
            assert len(here) <= most
            assert len(places) <= most_scored
        first, done = pack.end, pack.stop
    assert done == len(forest)


COMMON: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": CONTEXT, "initializer_range": 0.1, "pad_token_id": 0, "bos_token_id": 0,
    "eos_token_id": 1,
}  # fmt: skip
GROUPED = {**COMMON, "num_key_value_heads": 2, "head_dim": 8}
OTHER = {"vocab_size": VOCAB, "initializer_range": 0.1, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", {**OTHER, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}),
    "gpt-neox": ("GPTNeoX", COMMON),
    "llama": ("Llama", GROUPED),
    "olmo2": ("Olmo2", GROUPED),
    "wide-window": ("Mistral", {**GROUPED, "sliding_window": CONTEXT}),
    "window": ("Mistral", {**GROUPED, "sliding_window": 4}),
    "windows-in-turn": ("Gemma2", {**GROUPED, "sliding_window": 4}),
    "state-space": ("Mamba", {**OTHER, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}),
    "alibi": ("Bloom", {**OTHER, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "token-shift": ("Rwkv", {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "context_length": 64}),
    "window-hardly-felt": ("ModernBertDecoder", {**{k: v for k, v in COMMON.items() if k != "initializer_range"},
                                                 "local_attention": 4}),
}  # fmt: skip


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., BridgeReader]]:
    readers: list[BridgeReader] = []

    def open_(name: str, dtype: torch.dtype = torch.float32) -> BridgeReader:
        kind, settings = MODELS[name]
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(**settings)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        model.config.architectures = [type(model).__name__]
        folder = tmp_path / name
        model.config.save_pretrained(folder)
        tokenizer.save(folder)
        readers.append(BridgeReader(model, folder, dtype=dtype))
        return readers[-1]

    yield open_
    for reader in readers:
        reader.__exit__()


def choices() -> Prepared:
    words = ("AB", "C", "DOG", "E E", "12")
    examples = tuple(Example(f"ASK {i} = ", word, (*words[:i], *words[i + 1 :])) for i, word in enumerate(words))
    return prepare(
        [Probe(ProbeSet("CHOOSE", "L1", "choice", examples, 0.2, "0" * 12), SCORE)], CharacterTokenizer(), 64
    )[0]


def windowed() -> Prepared:
    texts = (Example("", "A TEXT THAT IS LONGER THAN THE WINDOWS IN WHICH IT IS READ", ()), Example("", "A TEXT", ()))
    return prepare(
        [Probe(ProbeSet("TEXT", "L1", "text", texts, None, "1" * 12), SCORE)], CharacterTokenizer(), 16, False
    )[0]


def generated(*names: str, count: int = 24) -> list[Prepared]:
    tasks = load_tasks(None)
    probes = [
        Probe(make_probe_set(tasks[name], level, count, 0), purpose)
        for name in names
        for level, purpose in (("L1", SCORE), ("L2", SCORE), (MIXED, GEOMETRY))
    ]
    return prepare(probes, CharacterTokenizer(), CONTEXT)


def rows_of(
    reader: Any, probes: list[Prepared], forest: bool, measures: MeasureConfig, compute: ComputeConfig | None = None
) -> tuple[list[Observation], str]:
    forests = grow(probes, measures.linear_probe is not None) if forest else []
    reading = Reading.of(reader, measures, compute or ComputeConfig(), forests)
    return observe(reading, probes, GeometryPlan.of(measures), ORIGIN), reading.passes


def near(found: float | None, expected: float | None, rel: float, least: float = 0.0) -> bool:
    if found is None or expected is None:
        return found is expected
    return abs(found - expected) <= max(rel * abs(expected), least)


def assert_same(found: list[Observation], expected: list[Observation]) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours._replace(value=None, stderr=None) == theirs._replace(value=None, stderr=None)
        if ours.measure.startswith("linear_probe") and ours.site is not None:
            # a share of held-out positions, read by a solver that stops early: one of them may tip over
            assert ours.value == pytest.approx(theirs.value, abs=2.5 / theirs.n)
            continue
        assert near(ours.value, theirs.value, SAME)
        # a spread of values that are rounded themselves: it cannot be known better than they are
        assert near(ours.stderr, theirs.stderr, SAME, 1e-6 * abs(ours.value or 0))


@pytest.mark.parametrize("name", ["gpt2", "gpt-neox", "llama", "olmo2"])
def test_every_number_is_that_of_plain_passes(name: str, opened: Callable[..., BridgeReader]) -> None:
    probes = [*generated("ADD", "COPY"), choices(), windowed()]
    measures = MeasureConfig(linear_probe=LinearProbeConfig(), bootstrap=2)
    reader = opened(name)
    plain, way = rows_of(reader, probes, False, measures)
    assert way == "plain"
    found, way = rows_of(reader, probes, True, measures, ComputeConfig(batch_tokens=100))
    assert way == "prefix forest"
    assert_same(found, plain)
    assert {row.status for row in plain} == {"ok"}
    assert {"perplexity", "accuracy_normalised", "rankme", "linear_probe_model"} <= {row.measure for row in plain}


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox"])
def test_a_model_in_training_is_read_as_a_forest_too(architecture: str) -> None:
    reader = LiveReader(ARCHITECTURES[architecture](Shape(2, 32, 4, 64, CONTEXT, VOCAB, True), seed=0), 2)
    probes, measures = [*generated("ADD"), choices()], MeasureConfig()
    plain, _ = rows_of(reader, probes, False, measures)
    found, way = rows_of(reader, probes, True, measures)
    assert way == "prefix forest"
    assert_same(found, plain)


UNFIT = ["window", "windows-in-turn", "state-space", "alibi", "token-shift"]


@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_keep_to_the_mask_is_read_in_plain_passes(name: str, opened: Callable[..., BridgeReader]) -> None:
    probes, measures = generated("ADD", count=6), MeasureConfig(readouts=("answer/centred",))
    reader = opened(name)
    plain, _ = rows_of(reader, probes, False, measures)
    found, way = rows_of(reader, probes, True, measures)
    assert way.startswith("plain: ")
    assert "differ from those of plain passes" in way or "ends in an error" in way
    assert found == plain


class Attention:
    """One layer of attention whose scores have ``bias(query, key)`` of the places in the pass added to them."""

    def __init__(self, bias: Callable[[Tensor, Tensor], Tensor], takes_depths: bool = True) -> None:
        generator = torch.Generator().manual_seed(0)
        self.weights = torch.randn(4, VOCAB, 8, generator=generator)
        self.bias, self.takes_depths = bias, takes_depths
        self.broken: tuple[int, int] | None = None
        """A token, and the place at which it makes NaN."""

    def sites(self) -> dict[str, int]:
        return {"blocks.0.hook_resid_post": 0}

    def hooks(self) -> dict[str, str]:
        return {site: site for site in self.sites()}

    def read(
        self, ids: Tensor, sites: list[str], logits: Tensor | None, depths: Tensor | None = None,
        visible: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], Tensor | None]:  # fmt: skip
        if depths is not None and not self.takes_depths:
            raise TypeError("forward() got an unexpected keyword argument 'position_ids'")
        n = ids.shape[1]
        places = torch.arange(n)
        visible = places <= places[:, None] if visible is None else visible
        query, key, value, out = (weight[ids] for weight in self.weights)
        if self.broken:
            token, place = self.broken
            there = (places if depths is None else depths) == place
            out = out.masked_fill(((ids == token) & there)[..., None], torch.nan)
        scores = query @ key.transpose(1, 2) + self.bias(places[:, None], places[None])
        states = value + torch.softmax(scores.masked_fill(~visible, -torch.inf), -1) @ out
        found = states @ self.weights[0].T
        return dict.fromkeys(sites, states), None if logits is None else found[:, logits]


def test_attention_by_places_in_the_pass_is_told_from_attention_by_the_mask() -> None:
    learned = torch.randn(CONTEXT, generator=torch.Generator().manual_seed(1)) * 0.1
    asked: Any = (["blocks.0.hook_resid_post"], np.arange(VOCAB), 12, "float32")
    assert try_forest(Attention(lambda i, j: torch.zeros(1)), *asked) == (None, VOCAB, 8)
    of_distance = Attention(lambda i, j: learned[(i - j).abs().clamp_max(CONTEXT - 1)])
    assert "differ from those of plain passes" in str(try_forest(of_distance, *asked).obstacle)
    deaf = Attention(lambda i, j: torch.zeros(1), takes_depths=False)
    assert "unexpected keyword argument 'position_ids'" in str(try_forest(deaf, *asked).obstacle)
    with SideBySide(3, 0) as threads:  # plain passes side by side say the same
        for one in (Attention(lambda i, j: torch.zeros(1)), of_distance, deaf):
            assert try_forest(one, *asked, threads) == try_forest(one, *asked)


def test_a_window_that_no_prompt_leaves_is_no_obstacle(opened: Callable[..., BridgeReader]) -> None:
    reader = opened("wide-window")
    assert try_forest(reader, list(reader.sites()), np.arange(VOCAB), 30, "float32").obstacle is None


@pytest.mark.parametrize(("name", "fit"), [("llama", True), ("window-hardly-felt", False)])
def test_few_digits_hide_nothing(name: str, fit: bool, opened: Callable[..., BridgeReader]) -> None:
    """The window moves this model's states by 0.004, less than rounding of bfloat16 moves those of a deep one."""
    reader = opened(name, torch.bfloat16)
    found = try_forest(reader, list(reader.sites()), np.arange(2, VOCAB), 18, "bfloat16")
    assert (found.obstacle is None) == fit


def test_one_prompts_nan_costs_no_other_task_anything() -> None:
    reader = Attention(lambda i, j: torch.zeros(1))
    probes, measures = [*generated("ADD", "COPY"), choices()], MeasureConfig(readouts=("answer/centred",))
    letter = CharacterTokenizer().tokenize("COPY")[0][3]
    reader.broken = letter, 3
    found, way = rows_of(reader, probes, True, measures)
    plain, _ = rows_of(reader, probes, False, measures)
    assert_same(found, plain)
    assert way == "prefix forest; plain for COPY: states at blocks.0.hook_resid_post are not finite"
    assert {row.status for row in found if row.task != "COPY"} == {"ok"}
    assert "nonfinite" in {row.status for row in found if row.task == "COPY"}


class Limited(Attention):
    """Runs out of memory above ``most`` tokens; notes what it was asked."""

    def __init__(self, most: int = 10**9) -> None:
        super().__init__(lambda i, j: torch.zeros(1))
        self.most, self.asked = most, list[tuple[int, int, bool]]()

    def sites(self) -> dict[str, int]:
        return {f"blocks.{layer}.hook_resid_post": layer for layer in range(3)}

    def read(self, ids: Tensor, sites: list[str], logits: Tensor | None, *tree: Any) -> Any:
        if ids.numel() > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if tree:
            self.asked.append((ids.numel(), len(sites), logits is not None))
        return super().read(ids, sites, logits, *tree)


def test_passes_keep_to_the_bounds_and_shrink_when_memory_runs_out() -> None:
    probes, measures = generated("ADD", count=60), MeasureConfig(readouts=("answer/centred",))
    whole, bounded, short = Limited(), Limited(), Limited(most=70)
    expected, _ = rows_of(whole, probes, True, measures)
    assert max(tokens for tokens, _, _ in whole.asked) <= NODES
    found, way = rows_of(bounded, probes, True, measures, ComputeConfig(batch_tokens=50))
    assert way == "prefix forest"
    assert max(tokens for tokens, _, _ in bounded.asked[1:]) <= 50  # the first is what is tried
    assert_same(found, expected)
    found, way = rows_of(short, probes, True, measures)
    assert way == "prefix forest"
    assert_same(found, expected)
    with pytest.raises(MachineError, match="memory runs out over one single example"):
        rows_of(Limited(most=3), probes, True, measures)


@pytest.mark.parametrize("sites_that_fit", [0, 1, 2, 3])
def test_states_beyond_the_bound_are_read_in_several_rounds(sites_that_fit: int) -> None:
    probes, measures = generated("ADD", count=20), MeasureConfig(readouts=("answer/centred",))
    (task,) = grow(probes, False)
    reader = Limited()
    state_memory = f"{sites_that_fit * len(task.kept) * 8 * 4 + 1}B"
    found, _ = rows_of(reader, probes, True, measures, ComputeConfig(state_memory=state_memory))
    rounds = -(-3 // max(1, sites_that_fit))
    nodes = sum(tokens for tokens, _, _ in reader.asked[1:])
    packs = list(task.packs(NODES // 4, VOCAB))
    whole = sum(pack.ids.numel() for pack in packs)
    assert whole * rounds * 0.5 < nodes <= whole * rounds
    with_logits = sum(len(pack.among(task.scored)[1]) > 0 for pack in packs)
    assert sum(logits for _, _, logits in reader.asked[1:]) == with_logits  # in the first round alone
    assert_same(found, rows_of(Limited(), probes, True, measures)[0])


def test_each_beginning_goes_through_the_model_once() -> None:
    probes = [*generated("ADD"), choices()]
    reader = Limited()
    rows_of(reader, probes, True, MeasureConfig(readouts=("answer/centred",)))
    fed = [encoded.ids for probe in probes for encoded in [*probe.encoded, *probe.options]]
    different = {(probe.probe.probe_set.task, encoded.ids[:end]) for probe in probes
                 for encoded in [*probe.encoded, *probe.options] for end in range(1, len(encoded.ids) + 1)}  # fmt: skip
    went = sum(tokens for tokens, _, _ in reader.asked[1:])
    assert len(different) <= went <= 1.1 * len(different)  # what a full pack leaves to the next begins anew
    assert went < 0.7 * sum(map(len, fed))


def test_a_run_says_how_prompts_went_through_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainable = ARCHITECTURES["gpt2"](Shape(2, 32, 4, 64, CONTEXT, VOCAB, True), seed=0)
    write_checkpoint(tmp_path / "s" / "step0", trainable, 0, tokens=0)
    few = ["--tasks", "ADD", "--set", "probes.score_examples=3", "--set", "probes.geometry_examples=6", "--quiet"]
    assert cli(["analyze", str(tmp_path / "s"), "--out", str(tmp_path / "run"), *few]) == 0
    assert [entry.passes for entry in read_manifest(tmp_path / "run").checkpoints] == ["prefix forest"]
    capsys.readouterr()
    assert cli(["runs", "show", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["checkpoints"][0]["passes"] == "prefix forest"
