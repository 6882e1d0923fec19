"""The whole analysis of a 160m-shaped checkpoint against the usual recipe: time, CPU time and peak memory.

Each side runs in a process of its own, so that peak memory is its own; the runs are interleaved. Printed, not asserted.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

TOKENIZER = Path(__file__).parents[2] / "shared" / "data" / "pythia_tokenizer.json"
PAIRS = int(os.environ.get("PYTHIAGEO_BENCH_PAIRS", "9"))

MAKE = """
import sys, torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
torch.manual_seed(0)
config = GPTNeoXConfig(vocab_size=50304, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
    intermediate_size=3072, max_position_embeddings=2048, tie_word_embeddings=False)
GPTNeoXForCausalLM(config).half().save_pretrained(sys.argv[1])
"""

COMMON = """
import json, resource, sys, time
from pathlib import Path
import torch, transformers
torch.set_num_threads(1)
from pythiageo.runs.config import ProbeConfig, MeasureConfig
from pythiageo.runs.probing import choose_probes, prepare
from pythiageo.runs.measuring import Instruments, Origin, observe
from pythiageo.probes.encoding import FileTokenizer
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPTNeoXForCausalLM, AutoTokenizer
from pythiageo.series.opening import open_folder
from pythiageo.lens import BridgeReader
folder = Path(sys.argv[1])
probes = prepare(choose_probes(ProbeConfig(score_examples=24, geometry_examples=100)), FileTokenizer(folder), 2048)
before = resource.getrusage(resource.RUSAGE_SELF)
begun = time.perf_counter()
"""

OURS = """
opened = open_folder(folder, "bench")
reader = BridgeReader(opened.model, folder)
origin = Origin("r", "s", "naturalistic", "160m", None, 0, None, opened.weight_sha)
instruments = Instruments.of(MeasureConfig(readouts=("answer/uncentred",), geometry=("rankme",)))
rows = observe(reader, probes, instruments, origin, 2048)
"""

RECIPE = """
model = GPTNeoXForCausalLM.from_pretrained(folder, dtype=torch.float32)
bridge = TransformerBridge.boot_transformers(str(folder), hf_model=model, device="cpu",
    tokenizer=AutoTokenizer.from_pretrained(folder))
rows = 0
for prepared in probes:
    kept = {}
    scores = []
    for start in range(0, len(prepared.encoded), 32):
        part = prepared.encoded[start : start + 32]
        width = max(len(e.ids) for e in part)
        ids = torch.zeros(len(part), width, dtype=torch.long)
        for row, e in enumerate(part):
            ids[row, : len(e.ids)] = torch.tensor(e.ids)
        with torch.no_grad():
            logits, cache = bridge.run_with_cache(ids)
        for row, e in enumerate(part):
            chosen = torch.log_softmax(logits[row, list(e.answer_positions)], -1)
            scores.append(chosen.gather(1, torch.tensor(e.targets)[:, None]).mean())
            for layer in range(12):
                state = cache[f"blocks.{layer}.hook_resid_post"][row, list(e.answer_positions)]
                kept.setdefault(layer, []).append(state)
    if prepared.probe.purpose == "geometry":
        for layer, states in kept.items():
            s = torch.linalg.svdvals(torch.cat(states))
            p = s / s.sum()
            torch.exp(-(p * (p + 1e-7).log()).sum())
"""

BODY = """
model = GPTNeoXForCausalLM.from_pretrained(folder, dtype=torch.float32).gpt_neox.eval()
from pythiageo.runs.probing import _batches
for prepared in probes:
    for indices in _batches(prepared, 2048):
        with torch.inference_mode():
            model(torch.tensor([prepared.encoded[i].ids for i in indices]), use_cache=False)
"""

END = """
after = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"wall": time.perf_counter() - begun,
    "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, "peak": after.ru_maxrss / 2**20}))
"""


def run(body: str, folder: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", COMMON + body + END, str(folder)],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.bench
def test_analysis_against_the_usual_recipe(tmp_path: Path) -> None:
    folder = tmp_path / "step1000"
    subprocess.run([sys.executable, "-c", MAKE, str(folder)], check=True, capture_output=True)
    if TOKENIZER.exists():
        (folder / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    else:
        from pythiageo.probes import tokenizer

        tokenizer.save(folder)
    sides = {"ours": OURS, "recipe": RECIPE, "body": BODY}
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for _ in range(PAIRS):
        for name, body in sides.items():
            seen[name].append(run(body, folder))
    for unit in ("wall", "cpu", "peak"):
        middle = {name: statistics.median(one[unit] for one in runs) for name, runs in seen.items()}
        faster = [r[unit] / o[unit] for r, o in zip(seen["recipe"], seen["ours"], strict=True)]
        over = [o[unit] / b[unit] for o, b in zip(seen["ours"], seen["body"], strict=True)]
        shown = ", ".join(f"{name} {value:.2f}" for name, value in middle.items())
        print(
            f"{unit}: {shown}; recipe/ours {statistics.median(faster):.2f} [{min(faster):.2f}, {max(faster):.2f}]; "
            f"ours/body {statistics.median(over):.2f} [{min(over):.2f}, {max(over):.2f}]"
        )
