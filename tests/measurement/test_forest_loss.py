"""The loss of a saved model on prefix forests against that of plain passes: losses, derivatives, draws, rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from pythiageo.config.tables import LandscapeConfig
from pythiageo.landscape.hessian import Hessian
from pythiageo.landscape.llc import LLC, Settings, llc
from pythiageo.landscape.problem import Problem
from pythiageo.measurement import landscape as room
from pythiageo.measurement.forest_loss import find_forest_logits
from pythiageo.measurement.landscape import Landscape
from pythiageo.measurement.probe_loss import logits_of, problem_of, shared_problem_of
from pythiageo.measurement.probe_sets import GEOMETRY, Prepared, Probe, prepare
from pythiageo.measurement.result import Origin
from pythiageo.observations import Observation
from pythiageo.probes.encoding import CharacterTokenizer
from pythiageo.probes.probeset import make_probe_set
from pythiageo.probes.task import MIXED, load_tasks

COMMON: dict[str, Any] = {"vocab_size": 41, "initializer_range": 0.1, "hidden_size": 32, "num_hidden_layers": 2,
                          "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 48,
                          "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1}  # fmt: skip
FAMILIES = {"GPTNeoX": COMMON,
            "GPT2": {"vocab_size": 41, "initializer_range": 0.1, "n_embd": 32, "n_layer": 2, "n_head": 4,
                     "n_positions": 48}}  # fmt: skip
ORIGIN = Origin("r", "s", "naturalistic", "x", None, 0, None, None)


def model_of(family: str, attention: str = "eager", **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**FAMILIES.get(family, COMMON), **settings})
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


def examples_of(task: str, count: int) -> Prepared:
    return prepare(
        [Probe(make_probe_set(load_tasks(None)[task], MIXED, count, 0), GEOMETRY)], CharacterTokenizer(), 48
    )[0]


def both(model: nn.Module, task: str, count: int, parameters: tuple[str, ...] = ("*",)) -> tuple[Problem, Problem]:
    encoded = examples_of(task, count).encoded
    forests = find_forest_logits(model, encoded)
    assert forests is not None
    plain = problem_of(model, logits_of(model), encoded, parameters)
    return plain, shared_problem_of(model, forests, encoded, parameters, forests.cut)


def drawn(problem: Problem, chosen: Tensor) -> Tensor:
    """Return the losses of some examples, by number."""
    parts = problem.minibatch(chosen)
    numbers = torch.cat([numbers for _, numbers in parts])
    assert numbers.sort().values.tolist() == chosen.tolist()
    return torch.cat([problem.piece_losses(piece) for piece, _ in parts])[numbers.argsort()]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_derivative_is_that_of_plain_passes(family: str) -> None:
    """In float64, on several packs: rounding alone is between them. Its bounds grow with the derivative.

    The step-by-step attention of GPT-NeoX takes its softmax in float32 whatever comes in, PyTorch's does not.
    """
    plain, shared = both(model_of(family, "sdpa").double(), "SORT", 80)
    assert len(shared.pieces) > 1
    torch.testing.assert_close(shared.example_losses(), plain.example_losses(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(shared.gradient(), plain.gradient(), rtol=1e-10, atol=1e-12)
    vector = torch.randn(plain.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with Hessian(plain) as a, Hessian(shared) as b, Hessian(shared, keep_graph=False) as c:
        expected = a.product(vector)
        for hessian in (b, c):
            assert float((hessian.product(vector) - expected).norm() / expected.norm()) < 1e-10
    for chosen in (torch.tensor([5]), torch.tensor([0, 7, 11, 60, 79]), torch.arange(80)):
        torch.testing.assert_close(drawn(shared, chosen), drawn(plain, chosen), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batch", [None, 16])
def test_draws_are_those_of_plain_passes(batch: int | None) -> None:
    """The same examples at every draw, in float32; the chain itself makes rounding no larger."""
    settings = Settings(gamma=1e4, step=1e-5, n_beta=1.0, draws=12, burn_in=2, chains=1, batch=batch)
    found = [llc(problem, settings, 3) for problem in both(model_of("GPTNeoX"), "CMP", 60)]
    assert all(isinstance(one, LLC) for one in found)
    torch.testing.assert_close(torch.tensor(found[1].elevations), torch.tensor(found[0].elevations), rtol=0, atol=1e-5)
    assert found[1].value == pytest.approx(found[0].value, rel=1e-4, abs=1e-5)


def rows_of(model: nn.Module, prepared: Prepared, *measures: str, **settings: Any) -> list[Observation]:
    config = LandscapeConfig(measures=measures, steps="0", examples=200, **settings)
    landscape = Landscape.of(config, [0], [prepared.probe])
    return landscape.rows(model, logits_of(model), 2, [prepared], ORIGIN)


def count_tokens(model: nn.Module, work: Callable[[], object]) -> int:
    """Return how many positions go through a model's blocks while something is done."""
    seen: list[int] = []
    handle = model.get_submodule("gpt_neox.layers.0").register_forward_pre_hook(
        lambda _module, arguments: seen.append(arguments[0].shape[0] * arguments[0].shape[1])
    )
    work()
    handle.remove()
    return sum(seen)


def test_rows_are_those_of_plain_passes_from_fewer_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prepared = model_of("GPTNeoX"), examples_of("PAR", 120)
    measures = ("hessian_trace", "first_parameters_covariance_rank")
    rows: dict[str, list[Observation]] = {}

    def take(name: str) -> None:
        rows[name] = rows_of(model, prepared, *measures, hessian={"probes": 3})

    shared = count_tokens(model, lambda: take("shared"))
    monkeypatch.setattr(room, "find_forest_logits", lambda *_: None)
    plain = count_tokens(model, lambda: take("plain"))
    assert shared < 0.6 * plain
    for one, other in zip(rows["shared"], rows["plain"], strict=True):
        assert one._replace(value=None, stderr=None) == other._replace(value=None, stderr=None)
        assert one.value == pytest.approx(other.value, rel=1e-5)
        assert (one.stderr or 0.0) == pytest.approx(other.stderr or 0.0, rel=1e-5)


def test_a_model_that_honours_no_mask_is_measured_in_plain_passes() -> None:
    model = model_of("Bloom", n_layer=2, n_head=4)
    prepared = examples_of("ADD", 12)
    assert find_forest_logits(model, prepared.encoded) is None
    (row,) = rows_of(model, prepared, "hessian_trace", hessian={"probes": 2})
    assert row.status == "ok"
