"""Task files: one TOML a task, read and checked; found in a checkout, in the installed wheel, or in a user's folder."""

from __future__ import annotations

import json
import string
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pythiageo.errors import UserError, nearest
from pythiageo.locations import packaged_folder
from pythiageo.probes.generators import GENERATORS, Settings

MIXED = "mixed"
"""The level that takes all of a task's levels in equal parts."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")]
Chance = Annotated[float, Field(ge=0, lt=1)]


class Item(BaseModel):
    """One fixed example: the text before the answer, the separating space included, and the answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Annotated[str, Field(min_length=1)]
    answer: Annotated[str, Field(min_length=1)]


class ItemLevel(BaseModel):
    """A level of fixed items, written in the task file (``items``) or beside it (``file``, JSONL)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    chance: Chance
    items: tuple[Item, ...] = ()
    file: str | None = None


class _TaskFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    version: Annotated[int, Field(ge=1)]
    description: str
    source: str


class GeneratorTask(_TaskFile):
    """A task whose examples are drawn by one of ``generators.GENERATORS``."""

    kind: Literal["generator"]
    generator: str
    prompt: str
    """Text before the answer, the separating space included; ``{input}`` stands for the generator's input."""
    answer: str
    """The answer; ``{output}`` stands for the generator's output."""
    levels: dict[Name, dict[str, Any]]

    @field_validator("generator")
    @classmethod
    def _known_generator(cls, value: str) -> str:
        if value not in GENERATORS:
            raise ValueError(f"no generator {value!r}{nearest(value, GENERATORS)}; there are {', '.join(GENERATORS)}")
        return value

    @model_validator(mode="after")
    def _complete(self) -> GeneratorTask:
        for key, text in (("prompt", self.prompt), ("answer", self.answer)):
            wanted = "input" if key == "prompt" else "output"
            fields = [field for _, field, _, _ in string.Formatter().parse(text) if field is not None]
            if fields != [wanted]:
                raise ValueError(f"{key} must hold {{{wanted}}} exactly once and no other field, got {text!r}")
        for level in self.levels:
            self.settings(level)
        return self

    def settings(self, level: str) -> Settings:
        """Return the generator's settings at ``level``."""
        values = {key: value for key, value in self.levels[level].items() if key != "chance"}
        return GENERATORS[self.generator].settings.model_validate(values)

    def chance(self, level: str) -> float:
        """Return how often the most common answer is right."""
        return _ChanceOnly.model_validate(self.levels[level]).chance


class _ChanceOnly(BaseModel):
    chance: Chance


class ItemTask(_TaskFile):
    """A task of fixed examples."""

    kind: Literal["items"]
    levels: dict[Name, ItemLevel]

    def chance(self, level: str) -> float:
        """Return the declared chance of guessing the whole answer."""
        return self.levels[level].chance


Task = GeneratorTask | ItemTask
_KINDS: dict[str, type[GeneratorTask] | type[ItemTask]] = {"generator": GeneratorTask, "items": ItemTask}


def read_task(path: Path) -> Task:
    """Read and check one task file.

    Raises:
        UserError: not TOML, an unknown or missing key, a wrong value; the sentence names file, key and expectation.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a TOML file: {error}") from None
    kind = data.get("kind")
    model = _KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise UserError(f"{path}: kind must be one of {', '.join(_KINDS)}, got {kind!r}")
    try:
        task = model.model_validate(data)
        if not task.levels:
            raise UserError(f"{path}: levels: expected at least one [levels.NAME] table")
        if MIXED in task.levels:
            raise UserError(f"{path}: levels: {MIXED!r} is reserved for all levels together")
        for level in task.levels:
            task.chance(level)
        return _with_items(task, path) if isinstance(task, ItemTask) else task
    except ValidationError as error:
        raise UserError(f"{path}: {describe(error, model)}") from None


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """Return one sentence for the first problem in ``error``: key, what is wrong, the nearest right key."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "file"
    known = _fields_at(model, first["loc"][:-1])
    if first["type"] == "extra_forbidden":
        word = str(first["loc"][-1])
        options = f"; expected one of {', '.join(known)}" if known else ""
        return f"unknown key {key!r}{nearest(word, known)}{options}"
    if first["type"] == "missing":
        return f"missing key {key!r}"
    message = first["msg"].removeprefix("Value error, ")
    shown = repr(first["input"])
    return f"{key}: {message}" + (f" (got {shown})" if len(shown) < 80 and first["type"] != "value_error" else "")


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    current: Any = model
    for part in location:
        field = current.model_fields.get(part) if isinstance(part, str) and hasattr(current, "model_fields") else None
        if field is None:
            return []
        current = field.annotation
    return list(getattr(current, "model_fields", {}))


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
        file = (path.parent / level.file).resolve()
        if path.parent.resolve() not in file.parents or not file.is_file():
            raise UserError(
                f"{path}: levels.{name}.file: expected a JSONL file in the folder of the task, got {level.file!r}"
            )
        levels[name] = level.model_copy(update={"items": _read_items(file)})
    return task.model_copy(update={"levels": levels})


def _read_items(file: Path) -> tuple[Item, ...]:
    items = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            items.append(Item.model_validate(json.loads(line)))
        except ValidationError as error:
            raise UserError(f"{file}:{number}: {describe(error, Item)}") from None
        except json.JSONDecodeError as error:
            raise UserError(f"{file}:{number}: not a JSON object: {error}") from None
    if not items:
        raise UserError(f"{file}: expected one JSON object with prompt and answer a line, found none")
    return tuple(items)


def load_tasks(extra: Path | None = None) -> dict[str, Task]:
    """Return all tasks by name: pythiageo's own and those of the folder ``extra``.

    Raises:
        UserError: a malformed file, or two files with one task name.
    """
    tasks: dict[str, Task] = {}
    origin: dict[str, Path] = {}
    folders = [packaged_folder("tasks")] + ([extra] if extra is not None else [])
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder of task files")
        for path in sorted(folder.glob("*.toml")):
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
