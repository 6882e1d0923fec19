"""Every decoder family that docs/families.md lists: read from a saved folder, against transformers itself.

States and logits: against forward hooks on the blocks of transformers' own model, to 1e-6 of the largest value at that
site (float32 sums in another order; most families agree to the last bit). Loss, gradients and Hessian: against plain
automatic differentiation of that model, one unpadded example at a time. The LLC is a walk along these gradients, and
has its own oracles in tests/landscape: here its row must have a value, or a status and a reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import families
import numpy as np
import pytest
import torch
from families import FAMILIES, VOCAB
from inmemory import characters
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from pythiageo.config.options import overrides
from pythiageo.config.runs import make_config
from pythiageo.lens import BridgeReader
from pythiageo.measurement.checkpoint import CheckpointMeasurer, MeasurementSpec
from pythiageo.measurement.probe_loss import logits_of, problem_of
from pythiageo.measurement.probe_sets import GEOMETRY, choose_probes, prepare
from pythiageo.measurement.saved_model import SavedModels
from pythiageo.observations import Observation
from pythiageo.probes.encoding import Encoded, FileTokenizer
from pythiageo.series.files.load import open_folder
from pythiageo.series.sources.folder import FolderCheckpoint

ROOT = Path(__file__).parents[2]
ASKED = {
    "probes.tasks": ["ADD"], "probes.score_examples": 2, "probes.geometry_examples": 4,
    "measures.geometry": ["rankme"], "measures.readouts": ["answer/centred"],
    "measures.landscape.measures": ["gradient_rank", "hessian_top", "llc"], "measures.landscape.hessian.k": 1,
    "measures.landscape.llc.draws": 2, "measures.landscape.llc.burn_in": 0, "measures.landscape.llc.chains": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    return characters(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def saved(request: pytest.FixtureRequest, tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = families.write(request.param, tmp_path / "step1")
    tokenizer.save_pretrained(folder)
    return folder


def theirs(folder: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def test_the_docs_list_these_families() -> None:
    text = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    assert families.table() in text, f"docs/families.md: expected\n{families.table()}"
    assert len({family.config for family in FAMILIES if family.landscape}) >= 15


@pytest.mark.parametrize("saved", FAMILIES, ids=lambda family: family.name, indirect=True)
def test_states_and_logits_are_those_of_transformers(saved: Path) -> None:
    model = theirs(saved)
    layers = model.config.num_hidden_layers
    (blocks,) = (m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == layers)
    expected: dict[str, Tensor] = {}

    def keep(site: str) -> Callable[..., None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            expected[site] = output[0] if isinstance(output, tuple) else output

        return hook

    for layer, block in enumerate(blocks):
        block.register_forward_hook(keep(f"blocks.{layer}.hook_resid_post"))
    ids = torch.randint(0, VOCAB, (3, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = model(ids, output_hidden_states=True, use_cache=False)
    expected["ln_final.hook_out"] = found.hidden_states[-1]
    with BridgeReader(open_folder(saved, "step1").model, saved) as reader:
        states, logits = reader.read(ids, list(reader.sites()), torch.arange(12))
        alone, _ = reader.read(ids, list(reader.sites())[:1], None)  # no further than the first block
    assert states.keys() == expected.keys()
    for site, value in {**states, "logits": logits}.items():
        wanted = expected.get(site, found.logits)
        assert float((value - wanted).abs().max()) <= 1e-6 * float(wanted.abs().max()), site
    assert torch.equal(*((one["blocks.0.hook_resid_post"]) for one in (states, alone)))


def plain_loss(model: Any, example: Encoded) -> Tensor:
    logits = model(torch.tensor([example.ids]), use_cache=False).logits[0]
    return functional.cross_entropy(logits[list(example.answer_positions)], torch.tensor(example.targets))


def plain_gradients(model: Any, examples: Sequence[Encoded]) -> Tensor:
    """(example, parameter)."""
    rows = []
    for example in examples:
        parts = torch.autograd.grad(plain_loss(model, example), list(model.parameters()), materialize_grads=True,
                                    allow_unused=True)  # fmt: skip
        rows.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(rows)


def plain_top(model: Any, examples: Sequence[Encoded]) -> float:
    """The largest eigenvalue of the Hessian, by ARPACK on products of plain double backward passes."""
    parameters = list(model.parameters())
    loss = torch.stack([plain_loss(model, example) for example in examples]).mean()
    first = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True, allow_unused=True)
    flat = torch.cat([part.flatten() for part in first])

    def product(vector: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        parts = torch.autograd.grad(flat, parameters, torch.from_numpy(vector).float().flatten(), retain_graph=True,
                                    materialize_grads=True, allow_unused=True)  # fmt: skip
        return torch.cat([part.flatten() for part in parts]).double().numpy()

    operator = LinearOperator((len(flat), len(flat)), product, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(len(flat))
    return float(eigsh(operator, k=1, which="LA", ncv=8, tol=1e-4, v0=start, return_eigenvectors=False)[0])


def entropy_rank(gradients: Tensor) -> float:
    p = torch.linalg.svdvals(gradients.double()).square()
    p = p / p.sum()
    return math.exp(float(torch.special.entr(p).sum()))


def measured(folder: Path) -> list[Observation]:
    """All rows of the checkpoint, as a run has them."""
    config = make_config({"name": "t", "target": "t"}, overrides(ASKED), "analyze", "test")
    identity = {"series": "t", "regime": "naturalistic", "size": "t", "seed": None}
    spec = MeasurementSpec(config, identity, choose_probes(config.probes), "cpu", [1])
    result = CheckpointMeasurer(spec, SavedModels(spec).open).measure(FolderCheckpoint(1, folder))
    assert result.status == "ok", result.reason
    assert result.tracebacks == ()
    return result.rows


@pytest.mark.parametrize(
    "saved", [one for one in FAMILIES if one.landscape], ids=lambda family: family.name, indirect=True
)
def test_loss_gradients_and_hessian_are_those_of_plain_differentiation(saved: Path) -> None:
    rows = measured(saved)
    assert {row.status for row in rows if row.measure == "rankme"} == {"ok"}
    found = {row.measure: row for row in rows}
    config = make_config({"name": "t", "target": "t"}, overrides(ASKED), "analyze", "test")
    (probe,) = (one for one in choose_probes(config.probes) if one.purpose == GEOMETRY)
    (prepared,) = prepare([probe], FileTokenizer(saved), None)
    examples = prepared.encoded
    model = theirs(saved)
    gradients = plain_gradients(model, examples)
    ours = open_folder(saved, "step1").model
    problem = problem_of(ours, logits_of(ours), examples)
    with torch.no_grad():
        loss = torch.stack([plain_loss(model, example) for example in examples]).mean()
    assert problem.loss() == pytest.approx(float(loss), rel=1e-5)
    mean = gradients.mean(0)
    # float32 sums over padded batches and over single examples: 1e-5 of the gradient's length
    assert float((problem.gradient() - mean).norm()) <= 1e-5 * float(mean.norm())
    assert found["gradient_rank"].value == pytest.approx(entropy_rank(gradients), rel=1e-4)
    top = found["hessian_top"]
    assert top.status == "ok", top.reason
    assert top.value == pytest.approx(plain_top(model, examples), rel=2e-3)  # ARPACK's 1e-4, float32 products
    llc = found["llc"]
    assert (llc.value is None) == bool(llc.reason)
