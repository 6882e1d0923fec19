"""Task files: one TOML a task, read and checked; found in a checkout, in the installed wheel, or in a user's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from pythiageo import extensions
from pythiageo.errors import UserError, nearest
from pythiageo.locations import packaged_folder
from pythiageo.probes.kinds import KINDS, TEXT, DatasetTask, GeneratorTask, Item, ItemLevel, ItemTask, Task
from pythiageo.untrusted_files import MIB, BadFileError, is_plain, parse_json, read_text
from pythiageo.validation import check_table, describe_problem, read_table

__all__ = ["MIXED", "DatasetTask", "GeneratorTask", "ItemTask", "Task", "get_levels", "get_task", "load_tasks"]

MIXED = "mixed"
"""The level that takes all of a task's levels in equal parts."""
_ITEMS_LIMIT = 64 * MIB
"""Bytes of a file of items: all tasks are read before one is chosen, and kept."""


def read_task(path: Path) -> Task:
    """Read and check one task file.

    Raises:
        UserError: not TOML, an unknown or missing key, a wrong value; the sentence names file, key and expectation.
    """
    data = read_table(path, "task file")
    kind = data.get("kind")
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise UserError(f"{path}: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    # the files of a data set are looked for beside the task file
    task = check_table(data, model, path, context={"folder": path.parent})
    if not task.levels:
        raise UserError(f"{path}: levels: expected at least one [levels.NAME] table")
    if MIXED in task.levels:
        raise UserError(f"{path}: levels: {MIXED!r} is reserved for all levels together")
    for level in task.levels:
        if (task.chance(level) is None) != (task.rule == TEXT):
            expected = "no chance for running text" if task.rule == TEXT else "missing key 'chance'"
            raise UserError(f"{path}: levels.{level}: {expected}")
    return _with_items(task, path) if isinstance(task, ItemTask) else task


def _with_items(task: ItemTask, path: Path) -> ItemTask:
    """Read the JSONL files of a task's levels. They must lie in the task file's own folder."""
    levels: dict[str, ItemLevel] = {}
    for name, level in task.levels.items():
        if bool(level.items) == bool(level.file):
            raise UserError(
                f"{path}: levels.{name}: expected either items or file, got {'both' if level.file else 'neither'}"
            )
        if level.file is None:
            levels[name] = level
            continue
        try:
            file = beside(path.parent, level.file)
        except ValueError as error:
            raise UserError(f"{path}: levels.{name}.file: expected a JSONL {error}") from None
        levels[name] = level.model_copy(update={"items": _read_items(file, task.rule)})
    return task.model_copy(update={"levels": levels})


def beside(folder: Path, name: str) -> Path:
    """Return the file ``name`` in ``folder``.

    Raises:
        ValueError: there is none, or it lies elsewhere.
    """
    try:
        file = (folder / name).resolve()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, a link to itself
        file = folder
    if folder.resolve() not in file.parents or not is_plain(file):
        raise ValueError(f"file in the folder of the task, got {name[:80]!r}")
    return file


def _read_items(file: Path, rule: str) -> tuple[Item, ...]:
    items = []
    try:
        text = read_text(file, _ITEMS_LIMIT)
    except BadFileError as error:
        way = "; a large set can be a task of kind 'dataset' with path 'json', which is read row by row"
        raise UserError(f"{file} {error}{way if file.stat().st_size > _ITEMS_LIMIT else ''}") from None
    # not splitlines(): a JSON text may hold U+2028, U+2029 and U+0085, and is cut at newlines alone
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            item = Item.model_validate(parse_json(line))
            item.check(rule)
            items.append(item)
        except ValidationError as error:
            raise UserError(f"{file}:{number}: {describe_problem(error, Item)}") from None
        except BadFileError as error:
            raise UserError(f"{file}:{number}: not a JSON object: it {error}") from None
        except ValueError as error:
            raise UserError(f"{file}:{number}: {error}") from None
    if not items:
        raise UserError(f"{file}: expected one JSON object a line, found none")
    return tuple(items)


def load_tasks(extra: Path | None = None) -> dict[str, Task]:
    """Return all tasks by name: pythiageo's own, those of installed packages, and those of the folder ``extra``.

    A package names folders of task files in the entry points ``pythiageo.tasks``.

    Raises:
        UserError: a malformed file, two files with one task name, or no such folder.
    """
    tasks: dict[str, Task] = {}
    origin: dict[str, Path] = {}
    installed = extensions.named_folders(extensions.TASKS)
    for folder in (packaged_folder("tasks"), *installed, *([] if extra is None else [extra])):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder of task files")
        for path in sorted(folder.glob("*.toml"), key=lambda path: path.stem):
            task = read_task(path)
            if task.name in tasks:
                raise UserError(f"{path}: name: a task {task.name!r} is already defined in {origin[task.name]}")
            tasks[task.name] = task
            origin[task.name] = path
    return tasks


def get_task(tasks: Mapping[str, Task], name: str) -> Task:
    """Return the task called ``name``.

    Raises:
        UserError: there is none; the nearest name is given.
    """
    if name not in tasks:
        raise UserError(f"no task {name!r}{nearest(name, tasks)}; there are {', '.join(tasks)}")
    return tasks[name]


def get_levels(task: Task, level: str) -> list[str]:
    """Return ``[level]``, or all levels for ``mixed``.

    Raises:
        UserError: the task has no such level.
    """
    if level == MIXED:
        return list(task.levels)
    if level not in task.levels:
        known = [*task.levels, MIXED]
        raise UserError(f"task {task.name} has no level {level!r}{nearest(level, known)}; it has {', '.join(known)}")
    return [level]
