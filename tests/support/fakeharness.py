"""What stands in for lm-evaluation-harness where it is not installed."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest


def stand_in(monkeypatch: pytest.MonkeyPatch, asked: list[Any]) -> None:
    """The names of lm-evaluation-harness that are used, giving results in its layout."""
    main, models = types.ModuleType("lm_eval"), types.ModuleType("lm_eval.models.huggingface")
    models.HFLM = lambda **given: given  # type: ignore[attr-defined]

    def simple_evaluate(**given: Any) -> dict[str, Any]:
        asked.append(given)
        metrics = {"alias": "sciq", "acc,none": 0.5, "acc_stderr,none": 0.1, "acc_norm,none": float("nan")}
        return {"results": {"sciq": metrics}, "n-shot": {"sciq": 0}, "versions": {"sciq": 1.0},
                "n-samples": {"sciq": {"effective": 8}}}  # fmt: skip

    tasks = types.ModuleType("lm_eval.tasks")
    tasks.TaskManager = lambda: types.SimpleNamespace(match_tasks=lambda names: [n for n in names if n == "sciq"])  # type: ignore[attr-defined]
    main.simple_evaluate = simple_evaluate  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lm_eval", main)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", tasks)
    monkeypatch.setitem(sys.modules, "lm_eval.models", types.ModuleType("lm_eval.models"))
    monkeypatch.setitem(sys.modules, "lm_eval.models.huggingface", models)
