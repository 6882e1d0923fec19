"""States kept only where a readout reads them: the numbers, and the notes, of a run that keeps every one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pythiageo.config.tables import ComputeConfig, LinearProbeConfig, MeasureConfig
from pythiageo.geometry.readout import Layout, find_places
from pythiageo.geometry.sinks import Sinks
from pythiageo.measurement.forward import Reading
from pythiageo.measurement.geometry import observe
from pythiageo.measurement.geometry_plan import GeometryPlan
from pythiageo.measurement.probe_sets import GEOMETRY, SCORE, Prepared, Probe, prepare
from pythiageo.measurement.result import Origin
from pythiageo.measurement.task_forest import grow
from pythiageo.observations import Observation
from pythiageo.probes.encoding import CharacterTokenizer
from pythiageo.probes.probeset import make_probe_set
from pythiageo.probes.task import MIXED, load_tasks
from pythiageo.synthetic.live import LiveReader
from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.trainable import ARCHITECTURES

CONTEXT = 64
ORIGIN = Origin("r", "s", "naturalistic", "x", None, 0, None, None)
AT_PLACES = ("answer/centred", "equals/uncentred", "last/centred", "answer-but-sinks/uncentred")


class Massive(LiveReader):
    """A model whose first position has 10 times its norm, and that of one token, so that outliers are read, too."""

    def read(
        self, ids: Tensor, sites: list[str], *others: Any, **named: Any
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        states, logits = super().read(ids, sites, *others, **named)
        depths = others[1] if len(others) > 1 else named.get("depths")
        first = torch.arange(ids.shape[1]).expand_as(ids) == 0 if depths is None else depths == 0
        scale = torch.where(first | (ids == 7), 10.0, 1.0)
        return {site: found * scale[..., None] for site, found in states.items()}, logits


@pytest.fixture(scope="module")
def reader() -> Massive:
    return Massive(ARCHITECTURES["gpt2"](Shape(2, 32, 4, 64, CONTEXT, 41, True), seed=0), 2)


@pytest.fixture(scope="module")
def probes() -> list[Prepared]:
    tasks = load_tasks(None)
    chosen = [
        Probe(make_probe_set(tasks[name], level, 24, 0), purpose)
        for name in ("ADD", "SORT")
        for level, purpose in (("L1", SCORE), (MIXED, GEOMETRY))
    ]
    return prepare(chosen, CharacterTokenizer(), CONTEXT)


def rows_of(reader: Massive, probes: list[Prepared], measures: MeasureConfig, forest: bool) -> list[Observation]:
    reading = Reading.of(reader, measures, ComputeConfig(), grow(probes, measures.linear_probe is not None) * forest)
    return observe(reading, probes, GeometryPlan.of(measures), ORIGIN)


@pytest.mark.parametrize("forest", [True, False], ids=["forest", "plain"])
@pytest.mark.parametrize("readouts", [AT_PLACES, ("last/centred",)], ids=["several", "last"])
def test_rows_are_the_same_bits_when_few_states_are_kept(
    reader: Massive, probes: list[Prepared], readouts: tuple[str, ...], forest: bool
) -> None:
    measures = MeasureConfig(
        readouts=readouts, bootstrap=3, rows=8, linear_probe=LinearProbeConfig() if len(readouts) > 1 else None
    )
    thin = [one.thin_out(GeometryPlan.of(measures).positions) for one in probes]
    kept = [one for one in thin if one.places is not None]
    assert [one.probe.purpose for one in kept] == [GEOMETRY] * 2
    assert all(int(one.layout.lengths.sum()) < one.tokens for one in kept)
    found, whole = rows_of(reader, thin, measures, forest), rows_of(reader, probes, measures, forest)
    assert found == whole
    assert any("sinks: they bring" in (row.reason or "") for row in found)
    assert any("others of more than 5 times" in (row.reason or "") for row in found) == (len(readouts) > 1)


@pytest.mark.parametrize(
    ("measures", "positions"),
    [
        ({"readouts": ["last/centred"]}, {"last"}),
        ({"readouts": ["last/centred"], "linear_probe": True}, {"last", "answer"}),
        ({"readouts": ["equals/uncentred", "answer-but-sinks/centred"]}, {"equals", "answer"}),
        ({"readouts": ["last/centred", "mean/centred"]}, None),
        ({"readouts": ["all-but-sinks/centred"]}, None),
        ({"readouts": ["last/centred"], "sinks": True}, None),
        ({"readouts": ["last/centred"], "sketch": 10, "sketch_positions": ["last"]}, None),
    ],
)
def test_every_state_is_kept_where_something_is_read_of_it(
    measures: dict[str, Any], positions: set[str] | None
) -> None:
    assert GeometryPlan.of(MeasureConfig(**measures)).positions == positions


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=5),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_a_thinned_out_layout_names_the_same_states(lengths: list[int], with_answers: bool, random: Any) -> None:
    answer = [tuple(sorted(random.sample(range(n), random.randint(1, n)))) for n in lengths]
    layout = Layout.of(lengths, answer, [random.randrange(n) for n in lengths])
    places, thin = layout.thin_out(with_answers)
    states = torch.arange(sum(lengths))
    for name in ("answer", "equals", "last") if with_answers else ("equals", "last"):
        taken, there = find_places(layout, name), find_places(thin, name)
        assert taken is not None
        assert there is not None
        assert states[taken].tolist() == states[places][there].tolist()
    norms = torch.tensor([random.choice([1.0, 2.0, 50.0]) for _ in states], dtype=torch.float64)
    whole = Sinks.of_norms(norms, layout.lengths)
    assert whole.at(places).all.tolist() == whole.all[places].tolist()
    assert whole.at(places).median == whole.median


def test_two_states_an_example_are_kept_for_the_last_position(probes: list[Prepared]) -> None:
    (geometry,) = (one for one in probes if one.probe.key == ("ADD", MIXED))
    (task,) = grow([geometry.thin_out({"last"})], False)
    assert len(task.kept) <= 2 * len({one.ids for one in geometry.encoded})  # that of the prompt's end is kept, too
    assert len(task.read) == len(task.forest)
