"""Scores of the ``diagnostic`` tasks at a 160m-shaped checkpoint against lm-evaluation-harness: time and peak memory.

``make agree`` makes the environment that has both; run it there. Each side loads the checkpoint and scores the same
items, options included, from the same token ids, in a process of its own on one thread; the runs are interleaved.
Printed; asserted is that both sum the same log-probabilities.
"""

from __future__ import annotations

import os
import statistics
from pathlib import Path

import pytest
from test_bench_analysis import PAIRS, make_checkpoint, run

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: make agree")

TASKS = os.environ.get("PYTHIAGEO_BENCH_TASKS", "diagnostic")

OURS = """
from pythiageo.measurement.probe_sets import SCORE
probes = [prepared for prepared in probes if prepared.probe.purpose == SCORE]
opened = open_folder(folder, "bench")
reading = Reading.of(BridgeReader(opened.model, folder), MeasureConfig(), ComputeConfig(), grow(probes, False))
total = 0.0
for prepared in probes:
    total += float(reading.answers(prepared).log_prob.sum())
    if prepared.options:
        total += float(reading.options(prepared).predictions.log_prob.sum())
"""

# the harness tokenizes and then calls this; it sorts by length, and makes passes of one length's rows
THEIRS = """
from lm_eval.models.huggingface import HFLM
from pythiageo.measurement.probe_sets import SCORE
model = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=16)
requests = []
for prepared in probes:
    if prepared.probe.purpose == SCORE:
        for one in [*prepared.encoded, *prepared.options]:
            context = list(one.ids[: one.answer_positions[0] + 1])
            requests.append((("", str(len(requests))), context, list(one.targets)))
total = sum(found for found, _ in model._loglikelihood_tokens(requests, disable_tqdm=True))
"""


@pytest.mark.bench
def test_scores_against_the_harness(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "step1000")
    sides = {"ours": OURS, "lm-evaluation-harness": THEIRS}
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for _ in range(PAIRS):
        for name, body in sides.items():
            seen[name].append(run(body, folder, "all", TASKS))
            print(name, seen[name][-1], flush=True)
    ours, theirs = seen.values()
    for unit in ("wall", "cpu", "peak"):
        ratios = sorted(b[unit] / a[unit] for a, b in zip(ours, theirs, strict=True))
        print(f"{unit}: harness / ours {statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]")
    assert ours[0]["total"] == pytest.approx(theirs[0]["total"], rel=1e-5)
