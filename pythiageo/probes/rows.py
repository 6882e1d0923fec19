"""Rows of a data set as examples, mapped by its task file: of a file beside it, or of the Hub when the task is used.

Data sets are tables (Parquet, JSON, CSV); a data set that comes as a script is refused by ``datasets`` itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from pythiageo.errors import MachineError, UserError, nearest
from pythiageo.probes.files import read_file
from pythiageo.probes.kinds import CHOICE, MINIMAL_PAIR, TEXT, DatasetTask, split_template
from pythiageo.untrusted_files import is_plain

WHOLE = "train"
"""What ``datasets`` calls the only split of a file."""
GUESSING = ("csv", "json")
"""Formats of which ``datasets`` guesses the types."""

Row = tuple[str, str, tuple[str, ...], int]
"""Prompt, answer, wrong options, place of the answer among listed options (or -1)."""


def read_rows(task: DatasetTask, level: str, count: int) -> list[Row]:
    """Return the first ``count`` rows; fewer, if there are not as many.

    Raises:
        UserError: no such data set, configuration, split or column; a row that is no example of the task's rule.
        MachineError: the data set could not be fetched.
    """
    rows: list[Row] = []
    for number, row in enumerate(islice(_load(task, level, count), count)):
        try:
            rows.append(_ROWS.get(task.rule, _plain)(row, task, level))
        except ValueError as error:
            raise UserError(f"task {task.name}, level {level}, row {number} of {task.path}: {error}") from None
    return rows


def _load(task: DatasetTask, level: str, count: int) -> Iterable[Mapping[str, Any]]:
    """Return the rows of a level: all, or the first ``count`` of a stream, of which no more is fetched."""
    part = task.levels[level]
    what = f"task {task.name}, level {level}: data set {part.file or task.path}"
    if part.file is not None:
        rows = read_file(_local_file(part.file, task, what), task.path, what)
        return rows if part.split == WHOLE else _part_of(rows, part.split, what)
    if Path(task.path).exists():
        raise UserError(f"{what}: a folder {task.path} lies here and would be read in its place: run from elsewhere")
    import datasets  # noqa: PLC0415 - takes seconds to import, and only these tasks need it

    try:
        table = datasets.load_dataset(
            task.path, name=part.config, split=part.split, revision=task.revision, streaming=task.streaming
        )
        kind = table.info.builder_name
        rows = list(islice(table, count)) if task.streaming else table
    except (datasets.exceptions.DatasetNotFoundError, datasets.exceptions.DatasetGenerationError) as error:
        raise UserError(f"{what}: {_sentence(error)}") from None
    except (ConnectionError, OSError) as error:
        raise MachineError(f"{what} could not be fetched: {_sentence(error)}") from None
    except (ValueError, RuntimeError) as error:
        # an unknown configuration or split, or a data set that would run code
        raise UserError(f"{what}: {_sentence(error)}") from None
    return map(partial(_doubt, kind=kind), rows) if kind in GUESSING else rows


def _part_of(rows: list[dict[str, Any]], split: str, what: str) -> list[dict[str, Any]]:
    """Return the rows of a split of a file, which ``datasets`` calls ``train``: ``train[:100]``."""
    import datasets  # noqa: PLC0415

    try:
        chosen = datasets.ReadInstruction.from_spec(split).to_absolute({WHOLE: len(rows)})
    except (ValueError, AssertionError) as error:
        raise UserError(f"{what}: {_sentence(error)}") from None
    return [row for piece in chosen for row in rows[piece.from_ : piece.to]]


def _doubt(value: Any, kind: str) -> Any:
    """Return a value of a CSV or JSON file on the Hub, whose type was guessed: what is no text is ``Doubted``.

    ``007`` came as 7, ``1`` beside an empty cell as 1.0, a date as a date.
    """
    if isinstance(value, Mapping):
        return {name: _doubt(inner, kind) for name, inner in value.items()}
    if isinstance(value, list):
        return [_doubt(inner, kind) for inner in value]
    # a whole number of a JSON file is written in one way alone
    sure = value is None or isinstance(value, str) or (kind == "json" and isinstance(value, int))
    return value if sure else Doubted(value, kind)


@dataclass(frozen=True)
class Doubted:
    """A value of a guessed type, whose text is not known."""

    value: Any
    kind: str


def _local_file(name: str, task: DatasetTask, what: str) -> Path:
    folder = (task.folder or Path()).resolve()
    try:
        file = (folder / name).resolve()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, a link to itself
        file = folder
    if folder not in file.parents or not is_plain(file):
        raise UserError(f"{what}: expected a {task.path} file in the folder of the task")
    return file


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
        parts.append(literal + ("" if column is None else as_text(get_value(row, column), column)))
    text = "".join(parts)
    if not text.strip():
        raise ValueError(f"{template!r} gives an empty text")
    return text


def as_text(value: Any, column: str) -> str:
    """Return a column's value as text.

    Raises:
        ValueError: it is neither text nor a number, or a number of which it is not known how it was written.
    """
    if isinstance(value, Doubted):
        raise ValueError(
            f"column {column!r} came from a {value.kind.upper()} file on the Hub as {value.value!r}, and how it is "
            f"written there (007, 1.50, a date) is not known: fetch the file, and name it in the task file with path = "
            f"{value.kind!r} and file"
        )
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"column {column!r} holds {type(value).__name__}, expected text or a number")
    return str(value)


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
        options = [as_text(option, columns.options_list) for option in get_value(row, columns.options_list)]
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
    value = as_text(get_value(row, column), column)
    return text.removeprefix(value[: len(value) - len(value.lstrip())])


def _right(row: Mapping[str, Any], task: DatasetTask, options: list[str]) -> int:
    """Return the index of the right option."""
    columns = task.columns
    if columns.answer_index is not None:
        place = get_value(row, columns.answer_index)
        place = place.value if isinstance(place, Doubted) else place
        if isinstance(place, str) and place.strip().isdecimal():  # a cell of a CSV file
            place = int(place)
        if not isinstance(place, int) or not 0 <= place < len(options):
            raise ValueError(
                f"expected a number from 0 to {len(options) - 1} in {columns.answer_index!r}, got {place!r}"
            )
        return place
    if columns.answer_label is not None and columns.option_labels is not None:
        found = as_text(get_value(row, columns.answer_label), columns.answer_label)
        known = [as_text(label, columns.option_labels) for label in get_value(row, columns.option_labels)]
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
