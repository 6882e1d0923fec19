"""Sites measured side by side have the rows, to the last bit and in the order, of sites measured one after another."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pythiageo.compute.side_by_side import SideBySide
from pythiageo.config.tables import MeasureConfig, ProbeConfig
from pythiageo.geometry.spectrum import Spectra
from pythiageo.measurement.forward import Reading
from pythiageo.measurement.geometry import observe
from pythiageo.measurement.geometry_plan import GeometryPlan
from pythiageo.measurement.probe_sets import GEOMETRY, Prepared, choose_probes, prepare
from pythiageo.measurement.result import Origin
from pythiageo.observations import Observation
from pythiageo.probes.encoding import CharacterTokenizer

ORIGIN = Origin("r", "s", "naturalistic", "stand-in", None, 0, None, None)
SITES = {f"blocks.{layer}.hook_resid_post": layer for layer in range(4)}


class StandIn:
    """States that are a function of the tokens and the site."""

    def sites(self) -> dict[str, int]:
        return SITES

    def hooks(self) -> dict[str, str]:
        return {site: site for site in SITES}

    def read(self, ids: Tensor, sites: list[str], logit_positions: Tensor | None) -> tuple[dict[str, Tensor], None]:
        places = torch.arange(1, ids.shape[1] + 1)[None, :, None]
        angles = (ids[..., None] + 1) * places * torch.arange(1, 25).sqrt()
        return {site: (angles * (SITES[site] + 1)).sin() + 5 for site in sites}, None


def take(prepared: list[Prepared], threads: int, waiting: int = 2**30) -> list[Observation]:
    plan = GeometryPlan.of(MeasureConfig(readouts=("all",), geometry=("rankme", "alpha_req", "two_nn", "cka_below")))
    with SideBySide(threads, waiting) as side_by_side:
        reading = Reading(StandIn(), SITES, 512, 2**30, side_by_side=side_by_side, at_once=threads)
        return observe(reading, prepared, plan, ORIGIN)


def test_rows_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    probes = [probe for probe in choose_probes(ProbeConfig(tasks=("ADD", "CMP"))) if probe.purpose == GEOMETRY]
    prepared = prepare(probes, CharacterTokenizer(), None)
    rows = take(prepared, 1)
    assert len({row.site for row in rows}) == 4
    assert any(row.value is not None for row in rows)
    assert take(prepared, 2) == rows
    assert take(prepared, 3, waiting=1) == rows

    def fail(_spectra: Spectra, centred: bool) -> None:
        raise RuntimeError("a fault in a thread")

    monkeypatch.setattr(Spectra, "of", fail)
    failed = take(prepared, 2)
    assert failed == take(prepared, 1)
    assert {row.status for row in failed if row.measure == "rankme"} == {"failed"}
