"""Result files of lm-evaluation-harness as a run folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pythiageo.errors import UserError
from pythiageo.importers.tidy_table import Mapping, Origin, make_observation, some, write_run
from pythiageo.observations.schema import HARNESS
from pythiageo.series.steps import parse_step

_LIMIT = 64 * 2**20
_METRICS = {"acc": "accuracy", "acc_norm": "accuracy_normalised", "exact_match": "accuracy"}
_METRICS |= dict.fromkeys(("ppl", "perplexity"), "answer_perplexity")
"""Theirs is exp of minus the mean log-probability summed over an answer; our ``perplexity`` is per token."""


def import_harness(source: Path, out: Path, name: str | None = None) -> Path:
    """Write lm-evaluation-harness result files, one a checkpoint or several, as a run folder.

    Both layouts: metrics named ``acc`` and ``acc_stderr``, and ``acc,none`` and ``acc_stderr,none``. The step is that
    of ``revision=stepN`` in the model's arguments, else of the name of the file or of the nearest folder that has one,
    up to ``source``.

    Raises:
        UserError: no such file, not the harness's, a step that is not told, files of several models, or one thing
            measured twice.
    """
    files = sorted(source.rglob("*.json")) if source.is_dir() else [source]
    found = [(file, content) for file in files if (content := _harness_file(file, strict=not source.is_dir()))]
    if not found:
        raise UserError(f"{source}: no result file of lm-evaluation-harness (JSON with 'results')")
    models = sorted({_model(content) for _, content in found})
    if len(models) > 1:
        raise UserError(f"{source}: results of {len(models)} models ({some(models)}): one run is of one model")
    title = name or models[0].split("/")[-1] or source.stem
    origin = Origin(title, models[0] or title, models[0].split("/")[-1] or title, None)
    mapping = Mapping(columns={}, regime="naturalistic")
    rows = []
    for file, content in found:
        step = _step(content, file, source)
        for row in _harness_rows(content):
            rows.append(make_observation({"step": step, **row}, mapping, origin, file))
    return write_run(out, origin, rows, mapping, [file for file, _ in found])


def _harness_file(file: Path, strict: bool) -> dict[str, Any] | None:
    """Return a result file's content; ``None`` for another JSON file of a folder."""
    try:
        if file.stat().st_size > _LIMIT:
            raise UserError(f"{file}: {file.stat().st_size:,} bytes are too many for a result file")
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: not readable JSON: {error}") from None
    whole = isinstance(content, dict) and isinstance(content.get("results"), dict)
    if not whole and strict:
        raise UserError(f"{file}: not a result file of lm-evaluation-harness: expected a table 'results'")
    return content if whole else None


def _arguments(content: dict[str, Any]) -> dict[str, str]:
    config = content.get("config")
    given = config.get("model_args") if isinstance(config, dict) else None
    if isinstance(given, dict):
        return {str(key): str(value) for key, value in given.items()}
    return dict(part.split("=", 1) for part in str(given or "").split(",") if "=" in part)


def _model(content: dict[str, Any]) -> str:
    return str(content.get("model_name") or _arguments(content).get("pretrained", ""))


def _step(content: dict[str, Any], file: Path, source: Path) -> int:
    """Return the step; the harness puts a folder named after the model between the folder it is given and its file."""
    folders = [folder.name for folder in file.resolve().parents if folder.is_relative_to(source.resolve())]
    for name in (_arguments(content).get("revision", ""), file.stem, *(folders or [file.resolve().parent.name])):
        found = parse_step(name) if name else None
        if found is None and (match := re.search(r"step_?(\d+)", name)):
            return int(match[1])
        if found is not None:
            return int(found)
    raise UserError(
        f"{file}: neither its model arguments nor its name say a step (revision=step1000, or step1000.json)"
    )


def _asked(content: dict[str, Any]) -> dict[str, str]:
    """Return what the harness calls each task's questions: the hash of its samples, else the version of the task."""
    hashes, versions = content.get("task_hashes"), content.get("versions")
    found: dict[str, str] = {}
    for names, word in ((versions, "version "), (hashes, "")):
        for task, name in names.items() if isinstance(names, dict) else ():
            if isinstance(name, str | int | float) and str(name):
                found[task] = f"{HARNESS}{word}{str(name)[:12]}"
    return found


def _harness_rows(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    shots, samples = content.get("n-shot") or {}, content.get("n-samples") or {}
    asked = _asked(content)
    config = content.get("config")
    default = config.get("num_fewshot") if isinstance(config, dict) else None
    for task, metrics in content["results"].items():
        few = shots.get(task, default) if isinstance(shots, dict) else default
        counted = samples.get(task) if isinstance(samples, dict) else None
        current = isinstance(metrics, dict) and any("," in key for key in metrics)
        for key, value in metrics.items() if isinstance(metrics, dict) else ():
            if current and "," not in key:
                continue  # sample_len, a count
            metric, _, variant = key.partition(",")
            if metric.endswith("_stderr") or isinstance(value, str | bool) or not isinstance(value, int | float):
                continue
            error = metrics.get(f"{metric}_stderr" + (f",{variant}" if variant else ""))
            yield {
                "task": task,
                "probe_set": asked.get(task),
                "level": f"{few or 0}-shot",
                "measure": _METRICS.get(metric, metric) + ("" if variant in {"", "none"} else f":{variant}"),
                "value": value,
                "stderr": error if isinstance(error, int | float) else None,
                "n": counted.get("effective") if isinstance(counted, dict) else None,
            }
