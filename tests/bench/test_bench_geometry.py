"""All ten readouts against the default one alone: both from one forward pass over 200 examples a task."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from pythiageo.config.tables import ComputeConfig, MeasureConfig, ProbeConfig
from pythiageo.lens import BridgeReader
from pythiageo.measurement.forward import Reading
from pythiageo.measurement.geometry import observe
from pythiageo.measurement.geometry_plan import GeometryPlan
from pythiageo.measurement.probe_sets import GEOMETRY, choose_probes, prepare
from pythiageo.measurement.result import Origin
from pythiageo.probes import tokenizer
from pythiageo.probes.encoding import CharacterTokenizer

PAIRS = int(os.environ.get("PYTHIAGEO_BENCH_PAIRS", "9"))


@pytest.mark.bench
@pytest.mark.parametrize(
    ("name", "layers", "width", "heads", "tasks"),
    [("nano", 2, 128, 4, ()), ("160m", 12, 768, 12, ("ADD", "SORT"))],
)
def test_ten_readouts_against_one(
    name: str, layers: int, width: int, heads: int, tasks: tuple[str, ...], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = GPTNeoXConfig(vocab_size=64, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
                           intermediate_size=4 * width, max_position_embeddings=64)  # fmt: skip
    tokenizer.save(tmp_path)
    model = GPTNeoXForCausalLM(config).eval()
    model.config.save_pretrained(tmp_path)
    reader = BridgeReader(model, tmp_path)
    probes = [probe for probe in choose_probes(ProbeConfig(tasks=tasks)) if probe.purpose == GEOMETRY]
    prepared = prepare(probes, CharacterTokenizer(), None)
    origin = Origin("r", "s", "naturalistic", name, None, 0, None, None)

    def seconds(*readouts: str) -> tuple[float, float]:
        measures = MeasureConfig(readouts=readouts)
        reading = Reading.of(reader, measures, ComputeConfig())
        begun = time.perf_counter(), time.process_time()
        observe(reading, prepared, GeometryPlan.of(measures), origin)
        return time.perf_counter() - begun[0], time.process_time() - begun[1]

    seconds("all")
    pairs = [(seconds("all"), seconds("answer/centred")) for _ in range(PAIRS)]
    for unit, index in (("wall", 0), ("cpu", 1)):
        ratios = sorted(many[index] / one[index] for many, one in pairs)
        middle = statistics.median(one[index] for _, one in pairs)
        shown = f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"
        print(f"\n{name}, ten readouts / one, {unit}: {shown}, one {middle:.2f} s", end="")
