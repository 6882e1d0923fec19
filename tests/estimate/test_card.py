"""Times on a GPU that is not here: computed from its rates, exact where those were measured, and told as computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tinyseries import write_series

from pythiageo.cli.app import run as cli
from pythiageo.errors import UserError
from pythiageo.estimate.card import CARDS, read_card, work_of
from pythiageo.series.model_shape import ModelShape

FEW = ["--tasks", "ADD,COPY", "--set", "probes.score_examples=5", "--set", "probes.geometry_examples=9", "--quiet"]
SHIPPED = [json.loads(line) for line in (CARDS / "h200.jsonl").read_text().splitlines()]


def test_spectra_take_what_was_measured_and_between_shapes_what_lies_between() -> None:
    card = read_card("H200")
    assert (card.name, card.memory, card.flops["float32"]) == ("NVIDIA H200", 150109880320, pytest.approx(50.48e12))
    assert card.time_spectra(1600, 768) == card.time_spectra(768, 1600) == pytest.approx(0.03631)  # the slower of two
    between = card.time_spectra(1600, 900)
    assert card.time_spectra(1600, 768) < between < card.time_spectra(1600, 1024)
    assert card.time_spectra(20, 64) == card.time_spectra(200, 768)  # it is waited for, not computed
    assert card.time_spectra(4800, 5120) == pytest.approx(0.1138 * work_of(4800, 5120) / work_of(2400, 5120))


def test_products_take_what_the_card_does_in_a_second(tmp_path: Path) -> None:
    shape = ModelShape.read(write_series(tmp_path, [0]) / "step0", "t")
    card = read_card("h200")
    block = sum(parameter.numel() for parameter in shape.one_block().parameters())
    flop = 2 * 1000 * block * shape.layers + 2 * 30 * shape.vocab * shape.d_model
    assert card.time_forward(shape, 1000, 30, "float32") == pytest.approx(flop / 50.48e12)
    assert card.time_forward(shape, 1000, 30, "bfloat16") == pytest.approx(flop / 763.8e12)


def without(key: str, value: object) -> list[dict[str, Any]]:
    return [line for line in SHIPPED if line.get(key) != value]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (without("part", "machine"), "expected the card's name"),
        (without("product", "bfloat16"), "expected products in float32 and bfloat16"),
        (without("copy", "to the card, pinned"), "expected copies to the card, pinned"),
        ([line for line in SHIPPED if "spectra" not in line], "expected spectra"),
        ([{**line, "device": 0} for line in SHIPPED], "device: expected a positive number, got 0"),
        ([{**line, "spectra": [7]} for line in SHIPPED], r"expected rows and width, got \[7\]"),
        ([{**line, "tflops": "many"} for line in SHIPPED], "tflops: expected a positive number, got 'many'"),
        ([[1]], "expected the card's name"),
    ],
)
def test_a_file_without_a_rate_is_told(lines: list[Any], said: str, tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match=rf"results\.jsonl: .*{said}"):
        read_card(str(file))


def test_no_such_card_and_no_json_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no card 'h20' \(did you mean 'h200'\?\); there are h200, and files"):
        read_card("h20")
    (tmp_path / "r").write_text("no JSON")
    with pytest.raises(UserError, match="--card: "):
        read_card(str(tmp_path / "r"))


def test_plan_computes_from_rates_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    series = str(write_series(tmp_path / "s", [0]))
    asked = ["plan", series, *FEW, "--set", 'measures.readouts=["answer/centred"]', "--layers", "0"]
    assert cli([*asked, "--device", "cuda", "--card", "h200", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    card = read_card("h200")
    assert (plan["card"], plan["card_bytes"]) == (card.name, card.memory)
    assert plan["seconds"].keys() == {"load", "forward", "geometry"}
    assert plan["seconds"]["geometry"] == pytest.approx(2 * card.time_spectra(9, 64))  # two tasks at one site
    assert 0 < plan["seconds"]["forward"] < 1e-3
    assert cli([*asked, "--device", "cuda", "--card", "h200"]) == 0
    assert "computed from rates of one NVIDIA H200, not timed here" in capsys.readouterr().out
    assert cli([*asked, "--card", "h200"]) == 2
    assert "--card: of a GPU, so add --device cuda" in capsys.readouterr().err


def test_times_of_the_cpu_in_a_gpus_place_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert cli(["plan", str(write_series(tmp_path / "s", [0])), *FEW, "--device", "cuda", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["card"] is None
    assert "there is no GPU here, so times are this CPU's: --card h200" in shown.err
