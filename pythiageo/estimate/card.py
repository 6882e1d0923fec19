"""What a checkpoint takes on a GPU that is not here, from rates that were measured on one of its kind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pythiageo.config.runs import AnalyzeConfig
from pythiageo.errors import UserError, nearest
from pythiageo.estimate.kept import count_rows
from pythiageo.estimate.trial import Trial, count_sites
from pythiageo.geometry.readout import get_readouts
from pythiageo.measurement.probe_sets import GEOMETRY, Prepared
from pythiageo.series.model_shape import ModelShape
from pythiageo.untrusted_files import MIB, BadFileError, parse_json, read_text

CARDS = Path(__file__).with_name("cards")
"""Rates of cards that were measured, as the GPU kit writes them (docs/gpu.md)."""
COPY = "to the card, pinned"


@dataclass(frozen=True)
class Card:
    """A GPU's rates.

    ``memory``: its bytes. ``flops``: products a second, by type. ``copy``: bytes a second from pinned memory.
    ``spectra``: work of a matrix (``work_of``), and the seconds of its centred and uncentred spectrum together.
    """

    name: str
    memory: int
    flops: Mapping[str, float]
    copy: float
    spectra: Sequence[tuple[float, float]]

    def time_forward(self, shape: ModelShape, tokens: int, scored: int, dtype: str) -> float:
        """Return the seconds of the products of forward passes at the card's full rate: they take at least that.

        2 operations a parameter of the blocks and a token, and of the unembedding and a scored position.
        """
        block = sum(parameter.numel() for parameter in shape.one_block().parameters())
        return 2 * (block * shape.layers * tokens + shape.vocab * shape.d_model * scored) / self.flops[dtype]

    def time_spectra(self, rows: int, width: int) -> float:
        """Return the seconds of both spectra of one matrix: between measured ones on a line in logarithms of the work.

        A smaller one takes as long as the smallest that was measured; beyond the largest, time grows as the work does.
        """
        work = work_of(rows, width)
        known = sorted(self.spectra)
        if work <= known[0][0]:
            return known[0][1]
        if work >= known[-1][0]:
            return known[-1][1] * work / known[-1][0]
        upper = next(place for place, (measured, _) in enumerate(known) if measured > work)
        (less, short), (more, long) = known[upper - 1 : upper + 1]
        return math.exp(math.log(short) + math.log(long / short) * math.log(work / less) / math.log(more / less))


def work_of(rows: int, width: int) -> float:
    """Return the multiplications of a Gram matrix of the smaller side."""
    return float(rows) * width * min(rows, width)


def read_card(named: str) -> Card:
    """Return the card of a name that pythiageo ships, or of a file of the GPU kit's results.

    Raises:
        UserError: neither; or a file that lacks a rate, or says that one is no positive number.
    """
    shipped = {path.stem: path for path in sorted(CARDS.glob("*.jsonl"))}
    path = shipped.get(named.lower(), Path(named))
    try:
        lines = [parse_json(line) for line in read_text(path, MIB).splitlines()]
    except FileNotFoundError:
        there = ", ".join(shipped)
        raise UserError(
            f"--card: no card {named!r}{nearest(named, shipped)}; there are {there}, and files of the GPU kit "
            f"(results.jsonl)"
        ) from None
    except BadFileError as error:
        raise UserError(f"--card: {path}: {error}") from None
    found = [line for line in lines if isinstance(line, dict)]
    rates = [line for line in found if line.get("part") == "rates"]
    machine = next((line for line in reversed(found) if line.get("part") == "machine"), {})
    flops = {str(one["product"]): 1e12 * _rate(one, "tflops", path) for one in rates if "product" in one}
    copies = [1e9 * _rate(one, "gb_per_second", path) for one in rates if one.get("copy") == COPY]
    spectra = _spectra([one for one in rates if "spectra" in one], path)
    for what, known in (
        ("the card's name", isinstance(machine.get("card"), str)),
        ("products in float32 and bfloat16", {"float32", "bfloat16"} <= flops.keys()),
        (f"copies {COPY}", bool(copies)),
        ("spectra", bool(spectra)),
    ):
        if not known:
            raise UserError(f"--card: {path}: expected {what}, as the GPU kit's part 'rates' writes them on a GPU")
    memory = int(_rate(machine, "gpu_bytes", path))
    return Card(str(machine["card"]), memory, flops, copies[-1], sorted(spectra.items()))


def _spectra(lines: list[dict[str, Any]], path: Path) -> dict[float, float]:
    """Return seconds by work; of states with a massive activation and without one, the slower."""
    found: dict[float, float] = {}
    for line in lines:
        shape = line["spectra"]
        if not (isinstance(shape, list) and len(shape) == 2 and all(type(side) is int and side > 0 for side in shape)):
            raise UserError(f"--card: {path}: spectra: expected rows and width, got {shape!r}")
        work = work_of(*shape)
        found[work] = max(found.get(work, 0.0), _rate(line, "device", path))
    return found


def _rate(line: dict[str, Any], key: str, path: Path) -> float:
    value = line.get(key)
    if type(value) not in {int, float} or not 0 < value < math.inf:  # type: ignore[operator]
        raise UserError(f"--card: {path}: {key}: expected a positive number, got {value!r}")
    return float(value)  # type: ignore[arg-type]


def time_on(
    card: Card, config: AnalyzeConfig, shape: ModelShape, prepared: Sequence[Prepared], trial: Trial, size: int
) -> dict[str, float]:
    """Return the seconds of the parts of a checkpoint on a card, as ``Trial.time_checkpoint`` does.

    Products, copies and spectra are computed from the card's rates. Reading, fingerprinting, wrapping modules for
    TransformerLens and linear probes are the CPU's work, and tried here. Launches, measures that take no spectrum, and
    bootstrap resamples are not counted.
    """
    half, opened = 2 * shape.parameters, trial.opening.time_opening(checked=False)
    parts = {
        "load": trial.time_weights(size) + half / card.copy + opened,
        "forward": card.time_forward(
            shape,
            sum(one.tokens for one in trial.passes.all),
            sum(one.examples * one.scored for one in trial.passes.all),
            config.compute.dtype,
        ),
        "geometry": _time_geometry(card, config, shape, prepared),
    }
    if config.measures.linear_probe is not None:
        parts["linear probe"] = trial.time_linear_probe(config.measures.linear_probe)
    return parts


def _time_geometry(card: Card, config: AnalyzeConfig, shape: ModelShape, prepared: Sequence[Prepared]) -> float:
    positions = {readout.positions for readout in get_readouts(list(config.measures.readouts))}
    matrices = [
        count_rows(one, name) for one in prepared if one.probe.purpose == GEOMETRY and one.kept for name in positions
    ]
    return count_sites(config, shape) * sum(card.time_spectra(rows, shape.d_model) for rows in matrices)
