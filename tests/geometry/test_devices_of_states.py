"""States on a GPU stay there: what a measure makes beside them, it makes where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pythiageo.geometry.dominance import find_dominance
from pythiageo.geometry.measure import Measure, load_measures
from pythiageo.geometry.readout import READOUTS, Layout
from pythiageo.geometry.sinks import measure_sinks
from pythiageo.geometry.view import SiteStates

FACTORIES = {torch.arange, torch.zeros, torch.ones, torch.empty, torch.full, torch.tensor, torch.eye, torch.linspace}
OF_STATES = [one for one in load_measures().values() if one.needs in {"states", "distances", "layers", "prompts"}]


class NamedDevices(TorchFunctionMode):
    """Refuses tensors that are made without saying where: on a machine with a GPU they would be on the CPU."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        assert func not in FACTORIES or "device" in kwargs, f"{func} without a device"
        return func(*args, **kwargs)


@contextmanager
def named_devices() -> Iterator[None]:
    with NamedDevices():
        yield


def site(rows: int = 40) -> SiteStates:
    generator = torch.Generator().manual_seed(0)
    layout = Layout.of([rows // 4] * 4, [(rows // 4 - 1,)] * 4, [rows // 4 - 2] * 4)

    def states() -> Tensor:
        found = torch.randn(rows, 12, generator=generator)
        found[:: rows // 4] *= 100
        return found

    return SiteStates(states(), layout, True, SiteStates(states(), layout, True))


@pytest.mark.parametrize("measure", OF_STATES, ids=lambda measure: measure.name)
def test_a_measure_of_states_makes_its_tensors_where_they_are(measure: Measure) -> None:
    readout = "all/centred" if measure.needs in {"layers", "prompts"} else "answer/centred"
    view = site().read(READOUTS[readout])
    with named_devices():
        measure.take(view)


def test_sinks_are_found_where_the_states_are() -> None:
    here = site()
    with named_devices():
        measure_sinks(here.states, here.sinks, here.layout)
    assert find_dominance(here, READOUTS["mean/uncentred"])
