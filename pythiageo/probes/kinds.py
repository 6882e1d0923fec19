"""The kinds of task a task file can be: drawn by a generator, fixed items, or the rows of a data set."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from pythiageo.errors import nearest
from pythiageo.probes.generators import GENERATORS, Settings
from pythiageo.validation import matching

Name = Annotated[
    str, matching(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", "at most 64 letters, digits, '_', '.' and '-', the first a letter")
]
Chance = Annotated[float, Field(ge=0, lt=1)]
Rule = Literal["exact", "choice", "minimal-pair", "next-token", "text"]
EXACT, CHOICE, MINIMAL_PAIR, NEXT_TOKEN, TEXT = "exact", "choice", "minimal-pair", "next-token", "text"
RULES: dict[str, str] = {
    EXACT: "every answer token is the arg max",
    CHOICE: "the answer has the highest log-probability of its options, raw or divided by its length in characters",
    MINIMAL_PAIR: "the answer has a higher log-probability than the wrong continuation",
    NEXT_TOKEN: "the answer's first token is the arg max; the others are not looked at",
    TEXT: "running text: every token after the first is predicted; there is no right or wrong, only perplexity",
}
"""How an answer is scored, by the ``rule`` of its task file."""
BUILDERS = ("json", "parquet", "csv")
"""The data set paths that read ``data_files`` beside the task file, and no Hub."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Item(_Table):
    """One fixed example, as a task file or a JSONL line gives it.

    ``prompt``: the text before the answer, the separating space included; ``answer``; ``options``: for ``choice``, all
    options in their order, the answer among them; ``wrong``: for ``minimal-pair``, the other continuation. A ``text``
    item has ``text`` and nothing else.
    """

    prompt: Annotated[str, Field(min_length=1)] | None = None
    answer: Annotated[str, Field(min_length=1)] | None = None
    options: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    wrong: Annotated[str, Field(min_length=1)] | None = None
    text: Annotated[str, Field(min_length=1)] | None = None

    def check(self, rule: str) -> None:
        """Raise a ``ValueError`` unless the item has just what ``rule`` needs."""
        wanted = _ITEM_KEYS.get(rule, ("prompt", "answer"))
        for key in type(self).model_fields:
            given = bool(getattr(self, key))
            if given != (key in wanted):
                raise ValueError(
                    f"an item of rule {rule!r} has {', '.join(wanted)} and nothing else, but {key!r} is "
                    f"{'given' if given else 'missing'}"
                )
        if self.options and (self.options.count(self.answer or "") != 1 or len(set(self.options)) < len(self.options)):
            raise ValueError(f"expected different options, with the answer {self.answer!r} among them")
        if len(self.options) == 1 or (self.wrong is not None and self.wrong == self.answer):
            raise ValueError(f"expected something wrong beside the answer {self.answer!r}")


_ITEM_KEYS: dict[str, tuple[str, ...]] = {
    CHOICE: ("prompt", "answer", "options"),
    MINIMAL_PAIR: ("prompt", "answer", "wrong"),
    TEXT: ("text",),
}


class ItemLevel(_Table):
    """A level of fixed items, written in the task file (``items``) or beside it (``file``, JSONL)."""

    chance: Chance | None = None
    items: tuple[Item, ...] = ()
    file: str | None = None


class _TaskFile(_Table):
    name: Name
    version: Annotated[int, Field(ge=1)]
    description: str
    source: str
    rule: Rule = "exact"
    """How an answer is scored; see ``RULES``."""
    listed: bool = False
    """Whether prompts list the options: then the most common position of the answer is a constant reply too."""

    @model_validator(mode="after")
    def _lists_options(self) -> _TaskFile:
        if self.listed and self.rule != CHOICE:
            raise ValueError(f"listed is for rule 'choice', not {self.rule!r}")
        return self


class GeneratorTask(_TaskFile):
    """A task whose examples are drawn by one of ``generators.GENERATORS``; with ``shots``, as few-shot text."""

    kind: Literal["generator"]
    generator: str
    prompt: str
    """Text before the answer, the separating space included; ``{input}`` stands for the generator's input."""
    answer: str
    """The answer; ``{output}`` stands for the generator's output."""
    shots: Annotated[int, Field(ge=0, le=32)] = 0
    """Solved examples before the one that is scored, all of different input."""
    separator: Annotated[str, Field(min_length=1)] = "\n"
    """Text between two examples of a few-shot prompt."""
    levels: dict[Name, dict[str, Any]]

    @field_validator("generator")
    @classmethod
    def _known_generator(cls, value: str) -> str:
        if value not in GENERATORS:
            raise ValueError(f"no generator {value!r}{nearest(value, GENERATORS)}; there are {', '.join(GENERATORS)}")
        return value

    @model_validator(mode="after")
    def _complete(self) -> GeneratorTask:
        if self.rule not in {EXACT, NEXT_TOKEN}:
            raise ValueError(f"rule must be 'exact' or 'next-token' for a generated task, got {self.rule!r}")
        for key, text in (("prompt", self.prompt), ("answer", self.answer)):
            wanted = "input" if key == "prompt" else "output"
            fields = template_fields(text)
            if fields != [wanted]:
                raise ValueError(f"{key} must hold {{{wanted}}} exactly once and no other field, got {text!r}")
        for level in self.levels:
            self.settings(level)
        return self

    def settings(self, level: str) -> Settings:
        """Return the generator's settings at ``level``."""
        values = {key: value for key, value in self.levels[level].items() if key != "chance"}
        return GENERATORS[self.generator].settings.model_validate(values)

    def chance(self, level: str) -> float | None:
        """Return how often the most common answer is right."""
        return _ChanceOnly.model_validate(self.levels[level]).chance


class _ChanceOnly(BaseModel):
    chance: Chance


class ItemTask(_TaskFile):
    """A task of fixed examples."""

    kind: Literal["items"]
    levels: dict[Name, ItemLevel]

    @model_validator(mode="after")
    def _complete(self) -> ItemTask:
        for name, level in self.levels.items():
            for number, item in enumerate(level.items, start=1):
                try:
                    item.check(self.rule)
                except ValueError as error:
                    raise ValueError(f"levels.{name}: item {number}: {error}") from None
        return self

    def chance(self, level: str) -> float | None:
        """Return the declared chance of guessing the whole answer, ``None`` for running text."""
        return self.levels[level].chance


class Columns(_Table):
    """Which columns of a data set make an example. A column inside another is written ``choices.text``.

    ``prompt``, ``answer`` and each of ``options`` are templates: ``{question}`` stands for a column's value. Which
    option is right is said by ``answer`` (its text), or by ``answer_index`` (a column that counts from 0), or by
    ``answer_label`` (a column with one of the labels in the list ``option_labels``).
    """

    prompt: Annotated[str, Field(min_length=1)] | None = None
    answer: Annotated[str, Field(min_length=1)] | None = None
    options: tuple[str, ...] = ()
    options_list: str | None = None
    """A column that holds the list of options."""
    answer_index: str | None = None
    answer_label: str | None = None
    option_labels: str | None = None
    wrong: Annotated[str, Field(min_length=1)] | None = None
    last_word: str | None = None
    """A column of text whose last word is the answer and whose rest is the prompt."""
    text: str | None = None
    """A column of running text."""


class DatasetLevel(_Table):
    """A part of a data set: its configuration and split, and options of its own where they differ by level."""

    chance: Chance | None = None
    config: str | None = None
    split: str
    options: tuple[str, ...] = ()
    file: str | None = None
    """For the paths ``json``, ``parquet`` and ``csv``: a file beside the task file."""


class DatasetTask(_TaskFile):
    """A task whose examples are rows of a data set, fetched when the task is used and never by ``tasks list``.

    ``path``: ``owner/name`` on the Hub, or ``json``, ``parquet`` or ``csv`` for files beside the task file.
    ``revision``: a commit; default: the newest. ``streaming``: fetch no more than the rows that are taken need.
    """

    kind: Literal["dataset"]
    path: str
    revision: str | None = None
    streaming: bool = False
    columns: Columns
    levels: dict[Name, DatasetLevel]
    _folder: Path | None = PrivateAttr(default=None)

    def model_post_init(self, context: Any) -> None:
        """Take the task file's folder from the reader of the file."""
        self._folder = (context or {}).get("folder")

    @property
    def folder(self) -> Path | None:
        """Where the task file lies."""
        return self._folder

    @model_validator(mode="after")
    def _complete(self) -> DatasetTask:
        if self.path not in BUILDERS and (self.path.count("/") != 1 or not all(map(_is_plain, self.path.split("/")))):
            raise ValueError(f"path must be owner/name on the Hub, or one of {', '.join(BUILDERS)}, got {self.path!r}")
        if self.streaming and self.path in BUILDERS:
            raise ValueError(f"streaming is for a data set on the Hub, not for path {self.path!r}")
        for name, level in self.levels.items():
            if (level.file is None) == (self.path in BUILDERS):
                raise ValueError(f"levels.{name}: file goes with the paths {', '.join(BUILDERS)} and with no other")
        self._check_columns()
        return self

    def _check_columns(self) -> None:
        columns = self.columns
        options = [option for level in self.levels.values() for option in level.options]
        for template in (columns.prompt, columns.answer, columns.wrong, *columns.options, *options):
            template_fields(template or "")
        given = {key for key in Columns.model_fields if getattr(columns, key)}
        if self.rule == CHOICE and all(level.options for level in self.levels.values()):
            given |= {"options"}
        allowed = _COLUMNS[self.rule]
        if given not in allowed:
            shown = "; or ".join(", ".join(sorted(keys)) for keys in allowed)
            raise ValueError(f"columns of rule {self.rule!r} must be {shown}; got {', '.join(sorted(given)) or 'none'}")

    def chance(self, level: str) -> float | None:
        """Return the declared chance of guessing the whole answer, ``None`` for running text."""
        return self.levels[level].chance


_PLAIN = ({"prompt", "answer"}, {"last_word"})
_COLUMNS: dict[str, tuple[set[str], ...]] = {
    EXACT: _PLAIN,
    NEXT_TOKEN: _PLAIN,
    MINIMAL_PAIR: ({"prompt", "answer", "wrong"},),
    TEXT: ({"text"},),
    CHOICE: tuple(
        {"prompt", options, *right}
        for options in ("options", "options_list")
        for right in (("answer",), ("answer_index",), ("answer_label", "option_labels"))
    ),
}


def _is_plain(part: str) -> bool:
    return bool(part) and not part.startswith(".") and all(c.isalnum() or c in "._-" for c in part)


def split_template(text: str) -> list[tuple[str, str | None]]:
    """Return a template's pieces: text, and the name in braces that follows it, if any (``{{`` is a brace).

    Raises:
        ValueError: unbalanced braces, no name in them, or anything after the name.
    """
    pieces = []
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"{error}, in {text!r}") from None
    for literal, field, form, conversion in parsed:
        if field == "" or form or conversion:
            raise ValueError(f"expected a name and nothing else in the braces of {text!r}")
        pieces.append((literal, field))
    return pieces


def template_fields(text: str) -> list[str]:
    """Return the names in braces in a template. Raises as ``split_template``."""
    return [field for _, field in split_template(text) if field is not None]


Task = GeneratorTask | ItemTask | DatasetTask
KINDS: dict[str, type[GeneratorTask] | type[ItemTask] | type[DatasetTask]] = {
    "generator": GeneratorTask,
    "items": ItemTask,
    "dataset": DatasetTask,
}
