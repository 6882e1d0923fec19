"""What ``plan`` says of a checkpoint against the second one of a run: seconds as they pass, or CPU seconds.

Each in a process of its own, in turns. Shapes, tasks and threads come from environment variables. Printed, not
asserted. ``PYTHIAGEO_BENCH_CLOCK=cpu``, for a machine that others use, lets a plan count the CPU seconds of its
process, and holds them against the run's: on one thread.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

TOKENIZER = Path(__file__).parents[3] / "shared" / "data" / "pythia_tokenizer.json"
PAIRS = int(os.environ.get("PYTHIAGEO_BENCH_PAIRS", "3"))
SHAPES = os.environ.get("PYTHIAGEO_BENCH_SHAPES", "70m,160m").split(",")
TASKS = os.environ.get("PYTHIAGEO_BENCH_TASKS", "CMP,COPY").replace(" ", "")
THREADS = os.environ.get("PYTHIAGEO_BENCH_THREADS", "1,2").split(",")
CLOCK = os.environ.get("PYTHIAGEO_BENCH_CLOCK", "wall")

MAKE = """
import sys, torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
shapes = {"70m": (6, 512, 8), "160m": (12, 768, 12), "410m": (24, 1024, 16), "1b": (16, 2048, 8)}
layers, width, heads = shapes[sys.argv[1]]
torch.manual_seed(0)
GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=50304, hidden_size=width, num_hidden_layers=layers,
    num_attention_heads=heads, intermediate_size=4 * width, max_position_embeddings=2048,
    tie_word_embeddings=False)).half().save_pretrained(sys.argv[2])
"""

PLAN = """
import contextlib, io, json, sys, time
if sys.argv[1] == "cpu":
    time.perf_counter = time.process_time
from pythiageo.cli.app import run
shown = io.StringIO()
begun = time.monotonic()
with contextlib.redirect_stdout(shown):
    assert run(["plan", *sys.argv[2:], "--json"]) == 0
plan = json.loads(shown.getvalue())
print(json.dumps({"seconds": plan["checkpoint_seconds"], "took": time.monotonic() - begun, **plan["seconds"]}))
"""

RUN = """
import json, sys, time
import transformers.models.gpt_neox, transformer_lens.model_bridge
from pythiageo.measurement.checkpoint import CheckpointMeasurer
from pythiageo.cli.app import run
spent, measure = {}, CheckpointMeasurer.measure
def timed(*arguments, **named):
    wall, cpu = time.perf_counter(), time.process_time()
    result = measure(*arguments, **named)
    spent.update(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)
    return result
CheckpointMeasurer.measure = timed  # the last one stays: the first imports libraries and tokenizes the prompts
assert run(["analyze", *sys.argv[2:]]) == 0
print(json.dumps({"seconds": spent[sys.argv[1]], **spent}))
"""


def run(code: str, arguments: list[str]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", code, CLOCK, *arguments], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def make_checkpoint(shape: str, folder: Path) -> Path:
    """Save a model of a Pythia shape with random weights and, where it is beside the checkout, Pythia's tokenizer."""
    subprocess.run([sys.executable, "-c", MAKE, shape, str(folder)], check=True, capture_output=True)
    if TOKENIZER.exists():
        (folder / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    else:
        from pythiageo.probes import tokenizer

        tokenizer.save(folder)
    return folder


@pytest.mark.bench
@pytest.mark.parametrize("shape", SHAPES)
def test_a_plan_against_the_run(shape: str, tmp_path: Path) -> None:
    first = make_checkpoint(shape, tmp_path / "series" / "step1000")
    shutil.copytree(first, tmp_path / "series" / "step2000", copy_function=os.link)
    asked = [str(tmp_path / "series"), "--tasks", TASKS, "--readouts", "answer/centred", "--no-audit", "--quiet"]
    for threads in THREADS:
        options = [*asked, "--set", f"compute.threads={threads}", "--out"]
        ratios = []
        for pair in range(PAIRS):
            said = run(PLAN, [*options, str(tmp_path / "none")])
            took = run(RUN, [*options, str(tmp_path / f"{threads}-{pair}")])
            ratios.append(said["seconds"] / took["seconds"])
            parts = {name: round(value, 2) for name, value in said.items()}
            print(f"{shape}, {threads} threads: plan {parts}, run {took}", flush=True)
        middle, spread = statistics.median(ratios), f"[{min(ratios):.2f}, {max(ratios):.2f}]"
        print(f"{shape}, {TASKS}, {threads} threads: plan / run {middle:.2f} {spread}, {CLOCK}", flush=True)
