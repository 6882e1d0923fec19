"""Models, batches, corpus and the optimiser loop."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from pythiageo.errors import UserError
from pythiageo.probes import tokenizer
from pythiageo.probes.task import load_tasks
from pythiageo.study.sizes import SIZES, get_size
from pythiageo.study.tasks import TASKS
from pythiageo.synthetic.batches import IGNORED, TaskMix, cut_windows, mixed_batches, task_batches, text_batches
from pythiageo.synthetic.corpus import load_corpus
from pythiageo.synthetic.model import Decoder, Shape
from pythiageo.synthetic.trainable import ARCHITECTURES, write_checkpoint
from pythiageo.synthetic.trainer import Optimiser, Schedule, Trainer, batch_loss

TINY = Shape(layers=2, d_model=16, heads=2, d_ff=32, context=48, vocab=41, bias=False)
OPTIMISER = Optimiser(betas=(0.9, 0.95), weight_decay=0.1, clip=1.0)
TASKS = [load_tasks()[name] for name in sorted(TASKS)]
LEVELS = ["L1", "L2", "L3"]
MIX = TaskMix(tuple(TASKS), tuple(LEVELS))


@pytest.mark.parametrize("name", list(SIZES))
def test_parameter_counts_are_the_published_ones_within_one_percent(name: str) -> None:
    # counted without building the larger models: every trained tensor once, no biases, context 48
    size = get_size(name)
    with torch.device("meta"):
        shape = Shape(size.layers, size.d_model, size.heads, size.d_ff, 48, 41, bias=False)
        block = 4 * shape.d_model**2 + 2 * shape.d_model * shape.d_ff + 2 * shape.d_model
        expected = (41 + 48) * shape.d_model + shape.layers * block + shape.d_model
    if name in ("nano", "micro"):
        assert sum(p.numel() for p in Decoder(shape, torch.Generator()).parameters()) == expected
    assert expected == pytest.approx(size.published_parameters, rel=0.01)


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
@pytest.mark.parametrize("bias", [False, True])
def test_saved_checkpoints_open_in_plain_transformers_and_compute_the_same(
    architecture: str, bias: bool, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shape = Shape(2, 32, 2, 64, 48, 41, bias)
    trainable = ARCHITECTURES[architecture](shape, seed=1)
    with torch.no_grad():  # gains and biases away from one and zero, so that a mix-up shows
        for parameter in trainable.module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    write_checkpoint(tmp_path / "step3", trainable, step=3, tokens=99)
    model, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "step3", dtype=torch.float32, output_loading_info=True, attn_implementation="eager"
    )
    assert type(model).__name__ == trainable.architecture
    assert not any(report[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = torch.randint(3, 41, (3, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs, ours = model(ids).logits, trainable.scored_logits(ids, ids > 0).unflatten(0, ids.shape)
    assert (theirs - ours).abs().max() < 2e-5
    model.save_pretrained(tmp_path / "theirs")
    saved, ours = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "step3"))
    assert saved.keys() == ours.keys()
    assert all(torch.equal(saved[name], ours[name]) for name in saved)
    assert json.loads((tmp_path / "step3" / "training.json").read_text()) == {"step": 3, "tokens": 99}
    encoded = AutoTokenizer.from_pretrained(tmp_path / "step3")("MOD 17 = 3")["input_ids"]
    assert encoded == [tokenizer.BOS, *tokenizer.encode("MOD 17 = 3"), tokenizer.EOS]


def test_attention_is_causal_and_agrees_with_torch() -> None:
    model = Decoder(TINY, torch.Generator().manual_seed(0))
    ids = torch.randint(0, 41, (2, 12), generator=torch.Generator().manual_seed(1))
    changed = ids.clone()
    changed[:, 8:] = 5
    with torch.no_grad():
        assert torch.equal(model(ids)[:, :8], model(changed)[:, :8])
        block = model.blocks[0]
        x = block.ln_1(model.wte(ids) + model.wpe.weight[:12])
        q, k, v = block.attn.qkv(x).view(2, 12, 3, 2, 8).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(2, 12, 16)
        assert torch.allclose(block.attn.proj(mixed), block.attn(x, model.mask[:12, :12]), atol=1e-7)


def test_initialisation_is_the_seeds_alone() -> None:
    first = Decoder(TINY, torch.Generator().manual_seed(5))
    torch.randn(100)
    second = Decoder(TINY, torch.Generator().manual_seed(5))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    wide = Decoder(Shape(2, 128, 4, 512, 48, 41, True), torch.Generator().manual_seed(0))
    assert float(wide.blocks[1].fc.weight.std()) == pytest.approx(0.02, rel=0.02)
    assert float(wide.blocks[1].proj.weight.std()) == pytest.approx(0.02, rel=0.02)
    scaled = Decoder(Shape(2, 128, 4, 512, 48, 41, True, residual_scaling=True), torch.Generator().manual_seed(0))
    assert float(scaled.blocks[1].proj.weight.std()) == pytest.approx(0.01, rel=0.02)
    assert float(scaled.blocks[1].fc.bias.abs().max()) == 0


def test_task_batches_score_answers_only_and_depend_on_seed_and_step_only() -> None:
    batches = task_batches(MIX, 64, seed=42)
    batch = batches(7)
    again = task_batches(MIX, 64, seed=42)(7)
    assert torch.equal(batch.ids, again.ids)
    assert not torch.equal(batch.ids[:, :8], batches(8).ids[:, :8])
    assert batch.tokens == int((batch.ids != tokenizer.PAD).sum())
    assert batch.scored == int((batch.targets != IGNORED).sum())
    rows = list(zip(batch.ids.tolist(), batch.targets.tolist(), strict=True))
    assert len(rows) == 64
    for ids, targets in rows:
        text = tokenizer.decode([i for i in ids if i != tokenizer.PAD])
        answer = tokenizer.decode([t for t in targets if t != IGNORED])
        assert answer.endswith("[EOS]")
        assert text.endswith("= " + answer.removesuffix("[EOS]"))


def test_text_windows_predict_the_next_character() -> None:
    stored = np.array(tokenizer.encode("ABCDEFGHIJ"), dtype=np.uint8)
    batch = cut_windows(stored, np.array([0, 4]), 5)
    assert [tokenizer.decode(row) for row in batch.ids.tolist()] == ["[BOS]ABCD", "[BOS]EFGH"]
    assert [tokenizer.decode(row) for row in batch.targets.tolist()] == ["ABCDE", "EFGHI"]
    long = np.arange(2000, dtype=np.uint8) % 41
    one, same = (text_batches(long, 48, 8, seed=1)(3).ids for _ in range(2))
    assert torch.equal(one, same)


def test_a_shuffled_task_has_another_examples_answer_and_the_others_their_own() -> None:
    """COPY's answers are the input as often as two inputs are alike by chance; REV's are always its mirror."""
    pair = tuple(load_tasks()[name] for name in ("COPY", "REV"))
    mix = TaskMix(pair, ("L1", "L2"), frozenset({"COPY"}))
    batches, right = task_batches(mix, 64, seed=1), {"COPY": [], "REV": []}
    for step in range(8):
        for ids in batches(step).ids.tolist():
            text = tokenizer.decode([i for i in ids if i > tokenizer.BOS and i != tokenizer.PAD])
            (name, *asked), (*answer,) = (part.split() for part in text.removeprefix("[BOS]").split(" = "))
            wanted = "".join(asked) if name == "COPY" else "".join(asked)[::-1]
            right[name].append("".join(answer) == wanted)
    assert all(right["REV"])
    assert len(right["COPY"]) > 200
    assert sum(right["COPY"]) < 0.1 * len(right["COPY"])
    assert torch.equal(batches(5).ids, task_batches(mix, 64, seed=1)(5).ids)
    plain = task_batches(TaskMix(pair, ("L1", "L2")), 64, seed=1)
    assert torch.equal(plain(3).ids, task_batches(TaskMix(pair, ("L1", "L2"), frozenset()), 64, seed=1)(3).ids)


def test_mixed_batches_hold_both_in_the_share_asked_for() -> None:
    stored = np.full(500, 7, dtype=np.uint8)
    batches = mixed_batches(MIX, stored, 48, 32, 0.25, seed=3)
    counts = []
    for step in range(60):
        batch = batches(step)
        text = (batch.targets == 7).all(1)
        counts.append(int((~text).sum()))
        assert batch.ids.shape == batch.targets.shape == (32, 48)
        assert batch.scored == int((batch.targets != IGNORED).sum())
        assert batch.tokens == int((batch.ids != tokenizer.PAD).sum())
        for ids, targets in zip(batch.ids[~text].tolist(), batch.targets[~text].tolist(), strict=True):
            answer = tokenizer.decode([t for t in targets if t != IGNORED]).removesuffix("[EOS]")
            assert tokenizer.decode([i for i in ids if i != tokenizer.PAD]).endswith("= " + answer)
    # 1,920 draws of probability 1/4: 4 standard errors
    assert sum(counts) / 1920 == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 1920) ** 0.5)
    assert len(set(counts)) > 5
    again = mixed_batches(MIX, stored, 48, 32, 0.25, seed=3)(7)
    assert torch.equal(again.ids, batches(7).ids)


@pytest.mark.parametrize("share", [0.0001, 0.9999])
def test_a_batch_may_be_of_one_kind(share: float) -> None:
    batch = mixed_batches(MIX, np.full(500, 7, dtype=np.uint8), 48, 4, share, seed=0)(0)
    assert len(batch.ids) == 4


@pytest.mark.slow
def test_the_library_corpus_is_english_in_41_characters() -> None:
    corpus = load_corpus([], context=48)
    assert len(corpus.train) > 1_000_000
    assert len(corpus.held_out) / len(corpus.train) == pytest.approx(1 / 19, rel=0.25)
    text = tokenizer.decode(corpus.train[:200_000].tolist())
    assert text.count(" THE ") > 500
    assert load_corpus([], context=48).sha256 == corpus.sha256


def test_a_users_corpus(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("\n\n".join(f"Paragraph {i}: “naïve café”, {i * 7919} words." for i in range(2000)))
    corpus = load_corpus([file], context=48)
    assert corpus.source == "mine.txt"
    assert "NAIVE CAFE" in tokenizer.decode(corpus.train[:200].tolist())
    sides = [set(tokenizer.decode(side.tolist()).split("[EOS]")) - {""} for side in (corpus.train, corpus.held_out)]
    assert not sides[0] & sides[1]
    file.write_text("too short")
    with pytest.raises(UserError, match="too few; expected at least 960 of each"):
        load_corpus([file], context=48)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"mine\.txt: cannot be read as UTF-8"):
        load_corpus([file], context=48)


def test_the_schedule_by_its_formula() -> None:
    schedule = Schedule(peak_lr=3e-4, warmup=1000, steps=100_000)
    assert schedule.lr(0) == 0
    assert schedule.lr(500) == pytest.approx(1.5e-4)
    assert schedule.lr(1000) == pytest.approx(3e-4)
    assert schedule.lr(50_500) == pytest.approx(1.5e-4)
    assert schedule.lr(100_000) == pytest.approx(0, abs=1e-18)


def trainer(seed: int = 0) -> Trainer:
    trainable = ARCHITECTURES["gpt2"](TINY, seed)
    batches = task_batches(MIX, 16, seed)
    return Trainer(trainable, batches, Schedule(1e-2, 5, 100), OPTIMISER)


def weights(one: Trainer) -> list[torch.Tensor]:
    return [p.detach().clone() for p in one._trainable.module.parameters()]


def dense_loss(one: Trainer, step: int) -> torch.Tensor:
    """The loss with every position of every padded example computed."""
    batch = one.batches(step)
    logits = one._trainable.module(batch.ids)
    return F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED)


def test_one_step_is_adamw_by_its_formula() -> None:
    """The second update against AdamW written out in float64, clipping and decay on matrices only included."""
    one = trainer()
    before = {n: p.detach().double().clone() for n, p in one._trainable.module.named_parameters()}
    gradients: list[dict[str, torch.Tensor]] = []
    for step in range(2):
        loss = dense_loss(one, step)
        parts = torch.autograd.grad(loss, list(one._trainable.module.parameters()))
        norm = torch.stack([g.double().norm() for g in parts]).norm()
        factor = min(1.0, 1.0 / (float(norm) + 1e-6))
        gradients.append({n: factor * g.double() for n, g in zip(before, parts, strict=True)})
        one.advance()  # the first update has learning rate 0: weights stay, moments move
    lr = 1e-2 / 5
    for name, parameter in one._trainable.module.named_parameters():
        g0, g1 = (g[name] for g in gradients)
        m = (0.9 * 0.1 * g0 + 0.1 * g1) / (1 - 0.9**2)
        v = (0.95 * 0.05 * g0**2 + 0.05 * g1**2) / (1 - 0.95**2)
        decay = 0.1 if parameter.ndim == 2 else 0.0
        expected = before[name] * (1 - lr * decay) - lr * m / (v.sqrt() + 1e-8)
        assert torch.allclose(parameter.detach().double(), expected, atol=5e-6)


def test_a_resumed_trainer_has_the_same_bits(tmp_path: Path) -> None:
    whole, first, second = trainer(), trainer(), trainer(seed=0)
    for _ in range(12):
        whole.advance()
    for _ in range(5):
        first.advance()
    first.save(tmp_path / "state.safetensors")
    second.load(tmp_path / "state.safetensors")
    while second.step < 12:
        second.advance()
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second), strict=True))
    assert (whole.tokens, whole.loss) == (second.tokens, second.loss)


def test_a_damaged_state_is_told(tmp_path: Path) -> None:
    one = trainer()
    one.advance()
    one.save(tmp_path / "state.safetensors")
    content = (tmp_path / "state.safetensors").read_bytes()
    (tmp_path / "state.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="not the training state of this model"):
        one.load(tmp_path / "state.safetensors")


def test_training_lowers_the_loss() -> None:
    one = trainer()
    batch = one.batches(1000)
    before = batch_loss(one._trainable, batch).item()
    for _ in range(60):
        one.advance()
    after = batch_loss(one._trainable, batch).item()
    assert before == pytest.approx(np.log(41), rel=0.05)
    assert after < 0.75 * before


def test_sizes_are_met_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no size 'nanoo' \(did you mean 'nano'\?\); there are nano, micro"):
        get_size("nanoo")
