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

TOKENIZER = Path(__file__).parents[3] / "shared" / "data" / "pythia_tokenizer.json"
PAIRS = int(os.environ.get("PYTHIAGEO_BENCH_PAIRS", "9"))
TASKS = os.environ.get("PYTHIAGEO_BENCH_TASKS", "algorithmic")
"""The eight; ``diagnostic`` has long prompts, and options."""

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
from pythiageo.config.tables import ComputeConfig, ProbeConfig, MeasureConfig
from pythiageo.measurement.forward import Reading
from pythiageo.measurement.plain_reading import batches
from pythiageo.measurement.task_forest import grow
from pythiageo.measurement.probe_sets import choose_probes, prepare
from pythiageo.measurement.geometry import observe
from pythiageo.measurement.geometry_plan import GeometryPlan
from pythiageo.measurement.result import Origin
from pythiageo.geometry.readout import get_readouts, select
from pythiageo.probes.encoding import FileTokenizer
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPTNeoXForCausalLM, AutoTokenizer
from pythiageo.series.files.load import open_folder
from pythiageo.lens import BridgeReader
folder, readouts, tasks = Path(sys.argv[1]), sys.argv[2].split(","), tuple(sys.argv[3].split(","))
probes = prepare(choose_probes(ProbeConfig(tasks=tasks)), FileTokenizer(folder), 2048)
before = resource.getrusage(resource.RUSAGE_SELF)
begun = time.perf_counter()
"""

OURS = """
opened = open_folder(folder, "bench")
reader = BridgeReader(opened.model, folder)
origin = Origin("r", "s", "naturalistic", "160m", None, 0, None, opened.weight_sha)
measures = MeasureConfig(readouts=readouts)
reading = Reading.of(reader, measures, ComputeConfig(), grow(probes, False))
rows = observe(reading, probes, GeometryPlan.of(measures), origin)
"""

# what people write: batches of 32 in file order, padded, everything cached, all logits, one SVD a layer and readout
RECIPE = """
model = GPTNeoXForCausalLM.from_pretrained(folder, dtype=torch.float32)
bridge = TransformerBridge.boot_transformers(str(folder), hf_model=model, device="cpu",
    tokenizer=AutoTokenizer.from_pretrained(folder))
names = [f"blocks.{layer}.hook_resid_post" for layer in range(12)] + ["ln_final.hook_out"]

def batched(encoded):
    for start in range(0, len(encoded), 32):
        part = encoded[start : start + 32]
        ids = torch.zeros(len(part), max(len(e.ids) for e in part), dtype=torch.long)
        for row, e in enumerate(part):
            ids[row, : len(e.ids)] = torch.tensor(e.ids)
        with torch.no_grad():
            yield part, *bridge.run_with_cache(ids)

for prepared in probes:
    if prepared.probe.purpose == "geometry":
        kept = {name: [] for name in names}
        for part, logits, cache in batched(prepared.encoded):
            for name in names:
                kept[name] += [cache[name][row, : len(e.ids)] for row, e in enumerate(part)]
        for states in kept.values():
            for readout in get_readouts(readouts):
                matrix = select(torch.cat(states), prepared.layout, readout.positions).float()
                sigma = torch.linalg.svdvals(matrix - matrix.mean(0) if readout.centred else matrix)
                for p in (sigma / sigma.sum(), sigma**2 / (sigma**2).sum()):
                    torch.exp(-(p * (p + 1e-12).log()).sum())
                (sigma**2).sum() ** 2 / (sigma**4).sum()
    else:
        for encoded in (prepared.encoded, [option for options in prepared.wrong for option in options]):
            for part, logits, cache in batched(encoded):
                for row, e in enumerate(part):
                    chosen = torch.log_softmax(logits[row, list(e.answer_positions)], -1)
                    chosen.gather(1, torch.tensor(e.targets)[:, None]).sum(), logits[row].argmax(-1)
"""

BODY = """
model = GPTNeoXForCausalLM.from_pretrained(folder, dtype=torch.float32).gpt_neox.eval()
for prepared in probes:
    for encoded in (prepared.encoded, [option for options in prepared.wrong for option in options]):
        for indices in batches(encoded, lambda: 2048):
            with torch.inference_mode():
                model(torch.tensor([encoded[i].ids for i in indices]), use_cache=False)
"""

END = """
after = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"wall": time.perf_counter() - begun,
    "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, "peak": after.ru_maxrss / 2**20,
    **({"total": total} if "total" in globals() else {})}))
"""


def run(body: str, folder: Path, readouts: str, tasks: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", COMMON + body + END, str(folder), readouts, tasks],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


SIDES = {
    "ours, all readouts": (OURS, "all"),
    "recipe, all readouts": (RECIPE, "all"),
    "ours, one readout": (OURS, "answer/uncentred"),
    "recipe, one readout": (RECIPE, "answer/uncentred"),
    "body": (BODY, "all"),
}
RATIOS = (
    ("recipe, all readouts", "ours, all readouts"),
    ("recipe, one readout", "ours, one readout"),
    ("ours, all readouts", "body"),
    ("ours, one readout", "body"),
)


def make_checkpoint(folder: Path) -> Path:
    """Save a 160m-shaped model with random weights and, where it is beside the checkout, Pythia's tokenizer."""
    subprocess.run([sys.executable, "-c", MAKE, str(folder)], check=True, capture_output=True)
    if TOKENIZER.exists():
        (folder / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    else:
        from pythiageo.probes import tokenizer

        tokenizer.save(folder)
    return folder


@pytest.mark.bench
def test_analysis_against_the_usual_recipe(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "step1000")
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in SIDES}
    for _ in range(PAIRS):
        for name, (body, readouts) in SIDES.items():
            seen[name].append(run(body, folder, readouts, TASKS))
            print(name, seen[name][-1], flush=True)
    for unit in ("wall", "cpu", "peak"):
        middle = {name: statistics.median(one[unit] for one in runs) for name, runs in seen.items()}
        print(f"{unit}: " + ", ".join(f"{name} {value:.2f}" for name, value in middle.items()))
        for above, below in RATIOS:
            ratios = sorted(a[unit] / b[unit] for a, b in zip(seen[above], seen[below], strict=True))
            print(f"  {above} / {below}: {statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]")
