"""Rows of a data set as examples: fetched through ``datasets`` when a task is used, mapped by its task file.

Data sets are tables (Parquet, JSON, CSV); a data set that comes as a script is refused by ``datasets`` itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pythiageo.errors import MachineError, UserError, nearest
from pythiageo.files import is_plain
from pythiageo.probes.kinds import CHOICE, MINIMAL_PAIR, TEXT, DatasetTask, split_template

Row = tuple[str, str, tuple[str, ...], int]
"""Prompt, answer, wrong options, place of the answer among listed options (or -1)."""


def read_rows(task: DatasetTask, level: str, count: int) -> tuple[list[Row], int]:
    """Return the first ``count`` rows (fewer, if there are not as many) and how many there are.

    Raises:
        UserError: no such data set, configuration, split or column; a row that is no example of the task's rule.
        MachineError: the data set could not be fetched.
    """
    table = _load(task, level)
    rows = []
    for number in range(min(count, len(table))):
        try:
            rows.append(_ROWS.get(task.rule, _plain)(table[number], task, level))
        except ValueError as error:
            raise UserError(f"task {task.name}, level {level}, row {number} of {task.path}: {error}") from None
    return rows, len(table)


def _load(task: DatasetTask, level: str) -> Any:
    import datasets  # noqa: PLC0415 - takes seconds to import, and only these tasks need it

    part = task.levels[level]
    what = f"task {task.name}, level {level}: data set {part.file or task.path}"
    files: str | None = None
    if part.file is not None:
        files = _local_file(part.file, task, what)
    elif Path(task.path).exists():
        raise UserError(f"{what}: a folder {task.path} lies here and would be read in its place: run from elsewhere")
    try:
        return datasets.load_dataset(
            task.path, name=part.config, split=part.split, data_files=files, revision=task.revision
        )
    except (datasets.exceptions.DatasetNotFoundError, datasets.exceptions.DatasetGenerationError) as error:
        raise UserError(f"{what}: {_sentence(error)}") from None
    except (ConnectionError, OSError) as error:
        raise MachineError(f"{what} could not be fetched: {_sentence(error)}") from None
    except (ValueError, RuntimeError) as error:
        # an unknown configuration or split, or a data set that would run code
        raise UserError(f"{what}: {_sentence(error)}") from None


def _local_file(name: str, task: DatasetTask, what: str) -> str:
    folder = (task.folder or Path()).resolve()
    try:
        file = (folder / name).resolve()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, a link to itself
        file = folder
    if folder not in file.parents or not is_plain(file):
        raise UserError(f"{what}: expected a {task.path} file in the folder of the task")
    return str(file)


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def get_value(row: Mapping[str, Any], column: str) -> Any:
    """Return a column's value; ``a.b`` is column ``b`` inside column ``a``.

    Raises:
        ValueError: there is none; the nearest name is given.
    """
    value: Any = row
    for part in column.split("."):
        if not isinstance(value, Mapping) or part not in value:
            known = list(value) if isinstance(value, Mapping) else []
            shown = f"; it has {', '.join(known)}" if known else ""
            raise ValueError(f"no column {column!r}{nearest(part, known)}{shown}")
        value = value[part]
    return value


def fill(template: str, row: Mapping[str, Any]) -> str:
    """Return ``template`` with each ``{column}`` replaced by the row's value; braces in values are left alone.

    Raises:
        ValueError: no such column, a value that is neither text nor a number, or an empty result.
    """
    parts = []
    for literal, column in split_template(template):
        value = "" if column is None else get_value(row, column)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"column {column!r} holds {type(value).__name__}, expected text or a number")
        parts.append(f"{literal}{value}")
    text = "".join(parts)
    if not text.strip():
        raise ValueError(f"{template!r} gives an empty text")
    return text


def _plain(row: Mapping[str, Any], task: DatasetTask, level: str) -> Row:
    columns = task.columns
    if columns.last_word is None:
        return fill(columns.prompt or "", row), fill(columns.answer or "", row), (), -1
    text = fill(f"{{{columns.last_word}}}", row).rstrip()
    word = text.split()[-1]
    rest = text.removesuffix(word)
    if not rest.strip():
        raise ValueError(f"expected at least two words in column {columns.last_word!r}")
    return rest, word, (), -1


def _text(row: Mapping[str, Any], task: DatasetTask, level: str) -> Row:
    return "", fill(f"{{{task.columns.text}}}", row), (), -1


def _pair(row: Mapping[str, Any], task: DatasetTask, level: str) -> Row:
    columns = task.columns
    answer, wrong = fill(columns.answer or "", row), fill(columns.wrong or "", row)
    if answer == wrong:
        raise ValueError(f"the wrong continuation is the right one, {answer!r}")
    return fill(columns.prompt or "", row), answer, (wrong,), -1


def _choice(row: Mapping[str, Any], task: DatasetTask, level: str) -> Row:
    columns = task.columns
    if columns.options_list is not None:
        options = [str(option) for option in get_value(row, columns.options_list)]
    else:
        options = [fill(option, row) for option in (task.levels[level].options or columns.options)]
    place = _right(row, task, options)
    wrong = tuple(option for i, option in enumerate(options) if i != place)
    if not wrong or not all(option.strip() for option in options):
        raise ValueError(f"expected at least two options that are not empty, got {options}")
    return _prompt(columns.prompt or "", row), options[place], wrong, place if task.listed else -1


def _prompt(template: str, row: Mapping[str, Any]) -> str:
    """Return the prompt; white space that a leading column starts with is left out, as lm-evaluation-harness does."""
    text = fill(template, row)
    literal, column = next(iter(split_template(template)))
    if literal or column is None:
        return text
    value = str(get_value(row, column))
    return text.removeprefix(value[: len(value) - len(value.lstrip())])


def _right(row: Mapping[str, Any], task: DatasetTask, options: list[str]) -> int:
    """Return the index of the right option."""
    columns = task.columns
    if columns.answer_index is not None:
        place = get_value(row, columns.answer_index)
        if not isinstance(place, int) or not 0 <= place < len(options):
            raise ValueError(
                f"expected a number from 0 to {len(options) - 1} in {columns.answer_index!r}, got {place!r}"
            )
        return place
    if columns.answer_label is not None and columns.option_labels is not None:
        found, known = get_value(row, columns.answer_label), list(get_value(row, columns.option_labels))
    else:
        found, known = fill(columns.answer or "", row), options
    if known.count(found) != 1 or len(known) != len(options):
        raise ValueError(f"expected {found!r} once among {known}, one for each of {len(options)} options")
    return known.index(found)


_ROWS: dict[str, Callable[[Mapping[str, Any], DatasetTask, str], Row]] = {
    TEXT: _text,
    MINIMAL_PAIR: _pair,
    CHOICE: _choice,
}
