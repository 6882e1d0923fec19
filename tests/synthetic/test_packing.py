"""The prefix tree: what it holds, and that nothing it leaves out changes logits or gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pythiageo.probes.task import GeneratorTask, load_tasks
from pythiageo.synthetic.batches import IGNORED, TaskMix, task_batches
from pythiageo.synthetic.model import Decoder, Shape
from pythiageo.synthetic.packing import Packed, pack
from pythiageo.synthetic.trainable import ARCHITECTURES

TASKS = [task for name in ("COPY", "CMP", "MUL") if isinstance(task := load_tasks()[name], GeneratorTask)]
ROWS = st.lists(
    st.tuples(st.lists(st.integers(1, 3), min_size=1, max_size=6), st.lists(st.booleans(), min_size=6, max_size=6)),
    min_size=1,
    max_size=12,
)


def batch_of(rows: list[tuple[list[int], list[bool]]]) -> tuple[Tensor, Tensor]:
    """Padded ids and scored positions; each row's last position is scored."""
    ids = torch.zeros(len(rows), 6, dtype=torch.int64)
    scored = torch.zeros(len(rows), 6, dtype=torch.bool)
    for row, (tokens, asked) in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        scored[row, : len(tokens)] = torch.tensor(asked[: len(tokens)])
        scored[row, len(tokens) - 1] = True
    return ids, scored


def prefixes(packed: Packed) -> list[tuple[int, ...]]:
    """The tokens up to each node, read back from the grids."""
    cells = torch.cat([grid.nodes.flatten() for grid in packed.grids])
    rows = [(grid.nodes, row, column) for grid in packed.grids for row in range(len(grid.nodes))
            for column in range(grid.nodes.shape[1])]  # fmt: skip
    found = []
    for node, cell in enumerate(packed.cells.tolist()):
        assert cells[cell] == node
        nodes, row, column = rows[cell]
        assert packed.positions[node] == column
        found.append(tuple(packed.ids[nodes[row, : column + 1]].tolist()))
    return found


@given(rows=ROWS)
@settings(max_examples=60, deadline=None)
def test_every_prefix_is_there_once(rows: list[tuple[list[int], list[bool]]]) -> None:
    ids, scored = batch_of(rows)
    packed = pack(ids, scored)
    wanted = {tuple(tokens[: end + 1]) for tokens, _ in rows for end in range(len(tokens))}
    found = prefixes(packed)
    assert len(found) == len(wanted)
    assert set(found) == wanted
    answers = [found[node] for node in packed.scored[packed.answers].tolist()]
    assert answers == [tuple(ids[row, : column + 1].tolist()) for row, column in scored.nonzero().tolist()]


@pytest.mark.parametrize("bias", [False, True])
@given(rows=ROWS, layers=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_logits_and_gradient_are_those_of_every_position(
    bias: bool, rows: list[tuple[list[int], list[bool]]], layers: int
) -> None:
    ids, scored = batch_of(rows)
    model = Decoder(Shape(layers, 8, 2, 16, 6, 5, bias), torch.Generator().manual_seed(1)).double()
    model.mask = model.mask.double()
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)).double()
    weight = torch.randn(int(scored.sum()), 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    results = []
    for logits in (model(ids)[scored], model.scored_logits(ids, scored)):
        gradient = torch.autograd.grad((logits * weight).sum(), list(model.parameters()))
        results.append([logits, *gradient])
    for dense, packed in zip(*results, strict=True):
        torch.testing.assert_close(packed, dense, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_the_loss_of_both_architectures_is_that_of_every_position(architecture: str) -> None:
    trainable = ARCHITECTURES[architecture](Shape(2, 32, 4, 64, 48, 41, True), 0)
    batch = task_batches(TaskMix(tuple(TASKS), ("L1", "L2", "L3")), 24, 5)(0)
    scored = batch.targets != IGNORED
    with torch.no_grad():
        found = trainable.scored_logits(batch.ids, scored)
        output = trainable.module(batch.ids)
    dense = getattr(output, "logits", output)[scored]
    torch.testing.assert_close(found, dense, rtol=1e-4, atol=1e-5)
    assert F.cross_entropy(found, batch.targets[scored]).item() == pytest.approx(3.7, abs=0.3)


def test_a_batch_of_tasks_is_less_than_its_tokens() -> None:
    batch = task_batches(TaskMix(tuple(TASKS), ("L1", "L2", "L3")), 64, 0)(0)
    packed = pack(batch.ids, batch.targets != IGNORED)
    assert len(packed.ids) < 0.8 * batch.tokens
    assert len(packed.answers) == batch.scored


def test_an_example_without_a_scored_position_is_an_error() -> None:
    with pytest.raises(ValueError, match="every example needs a scored position"):
        pack(torch.ones(2, 3, dtype=torch.int64), torch.tensor([[True, False, True], [False] * 3]))
