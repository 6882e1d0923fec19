"""One checkpoint of each Pythia shape through ``analyze``: seconds and memory, beside what ``plan`` said.

The weights are random, with one massive activation planted: the token that begins each prompt is embedded with a norm
of hundreds of times the others', as the first position of trained models has it.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch

from pythiageo.cli.app import run as cli
from pythiageo.observations import read_observations
from pythiageo.probes import tokenizer
from tests.gpu.kit.options import parse
from tests.gpu.kit.results import Results

SHAPES = {
    "70m": (6, 512, 8), "160m": (12, 768, 12), "410m": (24, 1024, 16), "1b": (16, 2048, 8), "1.4b": (24, 2048, 16),
    "2.8b": (32, 2560, 32),
}  # fmt: skip
"""Layers, width and heads."""
TINY = {"tiny": (2, 64, 4)}
VOCABULARY = 50_304
MASSIVE = 300.0
"""Norm of the planted embedding over the others'."""


def write_model(folder: Path, shape: tuple[int, int, int], device: str) -> int:
    """Write a checkpoint of a Pythia shape in half precision; return its number of parameters."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    layers, width, heads = shape
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY if width > 64 else 128, hidden_size=width, num_hidden_layers=layers,
        num_attention_heads=heads, intermediate_size=4 * width, max_position_embeddings=2048, rotary_pct=0.25,
        use_parallel_residual=True, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("cuda" if device.startswith("cuda") else "cpu"):
        model = GPTNeoXForCausalLM(config)
    embedding = model.get_input_embeddings().weight.data
    embedding[tokenizer.BOS] *= MASSIVE / embedding[tokenizer.BOS].norm() * embedding.norm(dim=1).median()
    model.half().save_pretrained(folder)
    tokenizer.save(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def measure(name: str, shape: tuple[int, int, int], device: str, work: Path, few: list[str]) -> dict[str, Any]:
    """Write, plan and analyze one shape; return what was seen."""
    series, run = work / name, work / f"{name}-run"
    begun = time.perf_counter()
    parameters = write_model(series / "step1", shape, device)
    written = time.perf_counter() - begun
    on = ["--device", device, "--no-audit", *few]
    planned = work / f"{name}-plan.json"
    _print_to(planned, ["plan", str(series), *on, "--json", "--quiet"])
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    begun = time.perf_counter()
    code = cli(["analyze", str(series), "--out", str(run), *on, "--quiet", "--overwrite"])
    seconds = time.perf_counter() - begun
    log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    table = read_observations(run)
    return {
        "parameters": parameters,
        "exit_code": code,
        "seconds": round(seconds, 2),
        "seconds_of": log[-1].get("seconds") if log else None,
        "writing": round(written, 2),
        "rows": table.height,
        "not_ok": table.filter(table["status"] != "ok").height,
        "gpu_peak": torch.cuda.max_memory_allocated() if device.startswith("cuda") else None,
        "process_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "plan": json.loads(planned.read_text(encoding="utf-8")) if planned.stat().st_size else None,
    }


def _print_to(file: Path, arguments: list[str]) -> None:
    """Run a command with its output in a file."""
    from contextlib import redirect_stdout

    with file.open("w", encoding="utf-8") as out, redirect_stdout(out):
        cli(arguments)


def main() -> int:
    """Measure every shape, the smallest first. Return 1 if one failed."""
    options = parse(__doc__)
    results = Results(options.out)
    few = ["--examples", "6", "--tasks", "ADD,COPY"] if options.rehearse else []
    failed = False
    for name, shape in (TINY if options.rehearse else SHAPES).items():
        shutil.rmtree(options.work / name, ignore_errors=True)
        try:
            results.add("shapes", shape=name, **measure(name, shape, options.device, options.work, few))
        except Exception as error:  # the next one may fit, or be read
            results.add("shapes", shape=name, error=f"{type(error).__name__}: {error}")
            failed = True
        shutil.rmtree(options.work / name, ignore_errors=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
