"""The shares that docs/reference.md quotes, made again of the values that are kept, by numpy's least squares."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

ROOT = Path(__file__).parents[2]
TABLES = ROOT / "outputs" / "reference" / "confound"
SETTINGS = ["training.batch_size", "training.peak_lr", "training.weight_decay"]
pytestmark = pytest.mark.skipif(not TABLES.is_dir(), reason="outputs/reference is not here")


def left(values: np.ndarray, predictors: list[np.ndarray]) -> float:
    """Return the residual variance of a least-squares fit with a constant."""
    whole = np.column_stack([np.ones(len(values)), *predictors])
    fitted = whole @ np.linalg.lstsq(whole, values, rcond=None)[0]
    return float(((values - fitted) ** 2).sum() / (len(values) - np.linalg.matrix_rank(whole)))


def shares(values: pl.DataFrame, quantity: str) -> dict[str, float]:
    parts = {name: 0.0 for name in ("nothing", *SETTINGS, "all settings", "final accuracy", "both")}
    for _, part in values.group_by("task"):
        ranks = part[quantity].log().to_numpy()
        coded = {name: part[name].to_dummies(drop_first=True).to_numpy() for name in SETTINGS}
        scores = [part.select(pl.selectors.starts_with("accuracy_")).to_numpy()]
        every = list(coded.values())
        fits = {"nothing": [], "all settings": every, "final accuracy": scores, "both": [*every, *scores]}
        for name, predictors in (fits | {name: [each] for name, each in coded.items()}).items():
            parts[name] += left(ranks, predictors)
    found = {name: 1 - each / parts["nothing"] for name, each in parts.items()}
    return found | {"all settings and final accuracy": found["both"]}


def test_the_shares_are_those_of_the_values_and_of_the_page() -> None:
    values, table = (pl.read_csv(TABLES / f"{name}.csv") for name in ("values", "variance"))
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    [count] = re.findall(r"of (\d+) runs of\nnano", page)
    assert values["run"].n_unique() == int(count)
    for quantity in ("floor", "final rank"):
        again = shares(values, quantity.replace(" ", "_"))
        for row in table.filter(quantity=quantity).rows(named=True):
            if row["goes_with"] in again:
                assert row["share"] == pytest.approx(again[row["goes_with"]], abs=1e-9)
    for name in [*SETTINGS, "all settings", "final accuracy"]:
        cells = []
        for quantity in ("floor", "final rank"):
            [row] = table.filter(quantity=quantity, goes_with=name).rows(named=True)
            cells += [
                f"{row[part]:.2f}, {row[low]:.2f} to {row[high]:.2f}"
                for part, low, high in (("share", "low", "high"), ("beyond", "beyond_low", "beyond_high"))
            ]
        assert f"| {name} | {' | '.join(cells)} |" in page
