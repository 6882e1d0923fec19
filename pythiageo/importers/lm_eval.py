"""Result files of lm-evaluation-harness."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pythiageo.errors import UserError
from pythiageo.importers.cells import TABLES
from pythiageo.importers.results import Request, Results, some
from pythiageo.observations.schema import HARNESS
from pythiageo.series.names import StepNames
from pythiageo.untrusted_files import MIB, BadFileError, read_json

_LIMIT = 64 * MIB
_METRICS = {"acc": "accuracy", "acc_norm": "accuracy_normalised", "exact_match": "accuracy"}
_METRICS |= dict.fromkeys(("ppl", "perplexity"), "answer_perplexity")
"""Theirs is exp of minus the mean log-probability summed over an answer; our ``perplexity`` is per token."""
_SHAPE = ("num_layers", "hidden_size")
"""Of gpt-neox's config: what models of one series have in common."""
_STEP = re.compile(
    r"step[-_=]?(?P<number>\d{1,15}(?!\d)(?:\.\d{1,15})?)(?P<unit>[A-Za-z]*)(?P<more>(?:[.,]?[A-Za-z0-9]|_\d{3}(?![A-Za-z0-9]))*)",
    re.IGNORECASE,
)
_USUAL = re.compile(
    r"(?<![A-Za-z])(?:\d+|zero|five|few)[-_ ]?shots?|(?<![A-Za-z])(?:eval|results?|global|lm|harness)(?![A-Za-z])"
    r"|\d{4}-\d\d-\d\d(?:T[\d.:-]+)?",
    re.IGNORECASE,
)
"""What names of result files often say besides."""


def read_results(request: Request) -> Results | None:
    """Return what the harness's result files say, one a checkpoint or several; ``None`` of a table.

    Both layouts: metrics named ``acc`` and ``acc_stderr``, and ``acc,none`` and ``acc_stderr,none``. The step is that
    of ``revision=stepN`` in the model's arguments, else of the name of the file or of the nearest folder that has one,
    up to the source. A model that is a checkpoint's folder, ``run1/step1000``, counts as that step of ``run1``;
    ``step_pattern`` says how else such a folder is named. Where no file names its model, the run is called after
    the source, and its manifest has a note.

    Raises:
        UserError: no such file, not the harness's, a step that is not told, files of several models or of several
            stages of training, or files that may be of several models.
    """
    source = request.source
    if request.mapping is not None or source.suffix in TABLES:
        return None
    files = sorted(source.rglob("*.json")) if source.is_dir() else [source]
    found = [(file, content) for file in files if (content := _harness_file(file, strict=not source.is_dir()))]
    if not found:
        raise UserError(f"{source}: no result file of lm-evaluation-harness (JSON with 'results')")
    names = StepNames(request.step_pattern)
    placed = [_split(_model(content), names) for _, content in found]
    model = _one_model(found, [name for name, _ in placed], source)
    last = model.split("/")[-1] or None
    local = any(place is not None for _, place in placed)  # a path of another machine is no name
    rows, stages = [], set()
    for (file, content), (_, place) in zip(found, placed, strict=True):
        named = place or _step(content, file, source)
        stages.add(named.stage)
        rows += [(file, {"step": named.step, **row}) for row in harness_rows(content)]
    if len(stages) > 1:
        raise UserError(f"{source}: results of {len(stages)} stages of training, each of which counts its own steps")
    title = last or source.stem
    notes = [] if model else [f"no file names its model: the series is called {request.name or title!r}"]
    series = last if local else model or None
    return Results(title, rows, [file for file, _ in found], series=series, size=last, notes=notes)


def _harness_file(file: Path, strict: bool) -> dict[str, Any] | None:
    """Return a result file's content; ``None`` for another JSON file of a folder."""
    try:
        content = read_json(file, _LIMIT)
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except BadFileError as error:
        raise UserError(f"{file} {error}") from None
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
    """Return the model that a file names, with what is laid over it; the empty text where it names none."""
    given = _arguments(content)
    # gpt-neox's evaluate.py has its whole config for arguments, of which 'load' is the folder of the weights
    name = content.get("model_name") or given.get("pretrained") or _without_step(given.get("load", ""))
    over = [f"{key}={given[key]}" for key in ("peft", "delta") if given.get(key)]
    return " + ".join([str(name), *over]) if name else ""


def _without_step(path: str) -> str:
    parts = [part for part in path.strip("/").split("/") if _told_step(part) is None]
    return parts[-1] if parts else ""


def _one_model(found: list[tuple[Path, dict[str, Any]]], named: list[str], source: Path) -> str:
    """Return the model that all files are of, the empty text where none names it; ``named``: what each file says.

    Raises:
        UserError: they are of several, or may be: no file names its model, and more than the step tells them apart.
    """
    models = sorted(set(named))
    if len(models) > 1:
        shown = some([model or "one that is not named" for model in models])
        raise UserError(f"{source}: results of {len(models)} models ({shown}): one run is of one model")
    shapes = {tuple(_arguments(content).get(key) for key in _SHAPE) for _, content in found}
    if len(shapes) > 1:
        raise UserError(f"{source}: results of models of {len(shapes)} shapes ({', '.join(_SHAPE)}): one run is of one")
    if not models[0]:
        apart = sorted({rest for file, content in found if (rest := _apart(file, content))})
        if len(apart) > 1:
            raise UserError(
                f"{source}: no file names its model, and their names tell {len(apart)} apart ({some(apart)}): one run "
                "is of one model: import each from a folder of its own"
            )
    return models[0]


def _apart(file: Path, content: dict[str, Any]) -> str:
    """Return what a file's name says besides its step, its tasks, shots and dates."""
    rest = _STEP.sub(" ", file.stem)
    for task in sorted(map(str, content["results"]), key=len, reverse=True):
        rest = rest.replace(task, " ")
    words = re.split(r"[\s_.,=+-]+", _USUAL.sub(" ", rest))
    return "-".join(word for word in words if word)


class Named(NamedTuple):
    """What a file says of the place in training."""

    step: int
    stage: str | None


def _split(model: str, names: StepNames) -> tuple[str, Named | None]:
    """Return a model's name and, where that is the path of a checkpoint's folder, its step and the folder above."""
    above, slash, last = model.rstrip("/").rpartition("/")
    found = names.parse(last) if slash else None
    return (above, Named(found.step, _stage(found.stage))) if found else (model, None)


def _stage(found: str | None) -> str | None:
    """Return the stage of training; what else stands before the step is the name of a model or of a file."""
    return found if found and found.lower().startswith("stage") else None


def _step(content: dict[str, Any], file: Path, source: Path) -> Named:
    """Return the step; the harness puts a folder named after the model between the folder it is given and its file."""
    folders = [folder.name for folder in file.resolve().parents if folder.is_relative_to(source.resolve())]
    for name in (_arguments(content).get("revision", ""), file.stem, *(folders or [file.resolve().parent.name])):
        if name and (found := StepNames().parse(name)) is not None:
            return Named(found.step, _stage(found.stage))
        if match := _told_step(name):
            return Named(_counted(match, file), None)
    raise UserError(
        f"{file}: neither its model arguments nor its name say a step (revision=step1000, or step1000.json)"
    )


def _told_step(name: str) -> re.Match[str] | None:
    return _STEP.search(name)


def _counted(match: re.Match[str], file: Path) -> int:
    """Return the step that a name says in words such as ``global_step1500``, ``step10k`` or ``step1.5k``.

    Raises:
        UserError: a number of which it cannot be said how many steps it stands for.
    """
    unit = {"": 1, "k": 1000, "m": 10**6}.get(match["unit"].lower())
    count = None if unit is None or match["more"] else float(match["number"]) * unit
    if count is None or count != int(count):
        raise UserError(f"{file}: which step is {match[0]!r}? expected a whole number, such as step1500 or step10k")
    return int(count)


def _asked(content: dict[str, Any]) -> dict[str, str]:
    """Return what the harness calls each task's questions: the hash of its samples, else the version of the task."""
    hashes, versions = content.get("task_hashes"), content.get("versions")
    found: dict[str, str] = {}
    for names, word in ((versions, "version "), (hashes, "")):
        for task, name in names.items() if isinstance(names, dict) else ():
            if isinstance(name, str | int | float) and str(name):
                found[task] = f"{HARNESS}{word}{str(name)[:12]}"
    return found


def harness_rows(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what the harness's results say, a number at a time, by the columns of an observation."""
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
