"""``pythiageo tasks``: list, show, check."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pythiageo.cli import display
from pythiageo.cli.working import working
from pythiageo.errors import EXIT_LOOK, EXIT_OK, UserError

if TYPE_CHECKING:
    from pythiageo.probes.encoding import Tokenizer
    from pythiageo.probes.kinds import Task
    from pythiageo.probes.probeset import Example

app = typer.Typer(
    help="Task files: what is there, what an example looks like, whether a file is right.",
    no_args_is_help=True,
)

FolderOption = Annotated[Path | None, typer.Option("--tasks-folder", help="A folder of task files of your own.")]
WIDTH = 110
"""Columns of a line of tokens."""
JsonOption = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@app.command("list")
def list_tasks(tasks_folder: FolderOption = None, as_json: JsonOption = False) -> None:
    """List all tasks and groups: how they are scored, their size, chance and majority rate by level.

    Example: pythiageo tasks list
    """
    with working("reading the task files"):
        from pythiageo.measurement.probe_sets import GROUPS
        from pythiageo.probes.task import load_tasks

        rows: list[dict[str, Any]] = [
            {
                "task": task.name,
                "version": task.version,
                "kind": task.kind,
                "rule": task.rule,
                "description": task.description,
                "groups": [group for group, members in GROUPS.items() if task.name in members],
                "levels": {level: _level(task, level) for level in task.levels},
            }
            for task in load_tasks(tasks_folder).values()
        ]
    if as_json:
        display.print_json(rows)
        return
    display.print_table(
        "tasks",
        ("task", "version", "kind", "rule", "description", "level: items, chance, majority rate"),
        [(*list(row.values())[:5], "; ".join(_in_words(*pair) for pair in row["levels"].items())) for row in rows],
    )
    for group, members in GROUPS.items():
        display.say(f"group {group}: {', '.join(members)}")
    display.say_next("tasks show MOD")


def _level(task: Task, level: str) -> dict[str, Any]:
    """Return what is known of a level without drawing or fetching anything."""
    from pythiageo.probes.kinds import TEXT, ItemTask
    from pythiageo.probes.probeset import count_domain, get_majority_rate, to_example

    known: dict[str, Any] = {"items": None, "chance": task.chance(level), "majority_rate": None}
    if (domain := count_domain(task, level)) is not None:
        known["domain"] = domain
    if isinstance(task, ItemTask):
        examples = [to_example(item, task) for item in task.levels[level].items]
        known["items"] = len(examples)
        known["majority_rate"] = None if task.rule == TEXT else get_majority_rate(examples)
    return known


def _in_words(level: str, known: dict[str, Any]) -> str:
    words = [f"{known['items']} items"] if known["items"] else []
    words += [f"{known[key]:.3g}" for key in ("chance", "majority_rate") if known[key] is not None]
    return f"{level}: {', '.join(words)}"


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Task name.")],
    level: Annotated[str | None, typer.Option(help="Level; default: every level.")] = None,
    examples: Annotated[int | None, typer.Option(min=1, help="Examples a level. Default: 3, or all.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the probe set.")] = 0,
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer.json, or its folder; default: the 41 characters.")
    ] = None,
    tasks_folder: FolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show examples as the model sees them, with the answer positions marked.

    The probe set named is the one that a run has by default, of as many examples.

    Example: pythiageo tasks show MOD --examples 2
    """
    from pythiageo.config.tables import ProbeConfig
    from pythiageo.probes.encoding import CharacterTokenizer, FileTokenizer
    from pythiageo.probes.kinds import RULES
    from pythiageo.probes.probeset import make_probe_set
    from pythiageo.probes.task import get_task, load_tasks

    task = get_task(load_tasks(tasks_folder), name)
    chosen: Tokenizer = FileTokenizer(tokenizer) if tokenizer else CharacterTokenizer()
    shown: list[dict[str, Any]] = []
    for one in [level] if level else list(task.levels):
        probe_set = make_probe_set(task, one, ProbeConfig().score_examples, seed, exactly=False)
        few = make_probe_set(task, one, examples, seed) if examples else probe_set
        whole = _level(task, one) if one in task.levels else {"items": None, "majority_rate": None}
        shown.append(
            {
                "level": one,
                "items": whole["items"],
                "domain": whole.get("domain"),
                "chance": probe_set.chance,
                "majority_rate": whole["majority_rate"],
                "probe_set": probe_set.sha,
                "probe_set_examples": len(probe_set.examples),
                "examples": [_example(example, chosen, task.rule) for example in few.examples[: examples or 3]],
            }
        )
    if as_json:
        display.print_json({"task": task.name, "rule": task.rule, "levels": shown})
        return
    display.say(f"{task.name} version {task.version}: {task.description} ({task.source})")
    display.say(f"right: {RULES[task.rule]}")
    display.say("fed: one cell a token; answer: the token each marked position must predict\n")
    for block in shown:
        facts = [f"{block['items']} items"] if block["items"] else []
        facts += [f"{block['domain']:,} different questions"] if block["domain"] else []
        facts += [f"{key} {block[key]:.3g}" for key in ("chance", "majority_rate") if block[key] is not None]
        display.say(
            f"{block['level']}  {'  '.join(facts)}  probe set".replace("_", " ")
            + f" {block['probe_set']} of {block['probe_set_examples']}"
        )
        for example in block["examples"]:
            _print_example(example)


def _example(example: Example, chosen: Tokenizer, rule: str) -> dict[str, Any]:
    """Return an example as the model sees it; as text alone where the tokenizer cannot read it."""
    from pythiageo.probes.encoding import encode_compared

    text = {"text": example.prompt + example.answer, "wrong": list(example.wrong)}
    try:
        encoded, wrong = encode_compared(example, chosen, rule)
    except (UserError, ValueError) as error:
        return {**text, "unreadable": str(error)}
    return {
        **text,
        "fed": [chosen.show(i) for i in encoded.ids],
        "answer_positions": list(encoded.answer_positions),
        "equals_position": encoded.equals_position,
        "targets": [chosen.show(i) for i in encoded.targets],
        "wrong_targets": [[chosen.show(i) for i in other.targets] for other in wrong],
    }


def _print_example(example: dict[str, Any]) -> None:
    if "unreadable" in example:
        display.say(f"  {example['text']!r}" + "".join(f"\n  wrong: {text!r}" for text in example["wrong"]))
        display.say(f"  no tokens: {example['unreadable'][:60]}…; name a tokenizer that can, with --tokenizer\n")
        return
    predicts = dict(zip(example["answer_positions"], example["targets"], strict=True))
    cells = [(_visible(token), _visible(predicts.get(i, ""))) for i, token in enumerate(example["fed"])]
    for line in _lines(cells):
        widths = [max(len(fed), len(target)) for fed, target in line]
        for label, column in (("fed   ", 0), ("answer", 1)):
            row = "│".join(cell[column].ljust(width) for cell, width in zip(line, widths, strict=True))
            display.say(f"  {label} {row.rstrip() if column else row}")
    for targets in example["wrong_targets"]:
        display.say(f"  wrong  {'│'.join(map(_visible, targets))}")
    display.say("")


def _visible(token: str) -> str:
    return token.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")


def _lines(cells: list[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Cut a row of cells so that a line of it stays on the screen."""
    line: list[tuple[str, str]] = []
    for cell in cells:
        if line and sum(1 + max(map(len, other)) for other in [*line, cell]) > WIDTH:
            yield line
            line = []
        line.append(cell)
    yield line


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="Task files.")],
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="REPO|FOLDER",
            help="Say which items a model cannot take: a repository, a checkpoint's folder or a tokenizer.json.",
        ),
    ] = None,
    context: Annotated[
        int | None, typer.Option(min=1, help="Positions of the model's context; default: what its config says.")
    ] = None,
) -> int:
    """Check task files; say what is wrong with the first that is. Data sets are fetched with --tokenizer alone.

    Exit code 1 when the model cannot take an item.

    Example: pythiageo tasks check mine.toml --tokenizer EleutherAI/pythia-160m
    """
    from pythiageo.probes.encoding import CharacterTokenizer, encode_probe_set
    from pythiageo.probes.kinds import DatasetTask
    from pythiageo.probes.probeset import make_probe_set
    from pythiageo.probes.task import read_task

    look = None if tokenizer is None else _looking(tokenizer, context)
    found: list[str] = []
    for path in files:
        if not path.is_file():
            raise UserError(f"{path}: no such task file")
        task = read_task(path)
        for level in task.levels:
            if look is not None:
                notes = look(task, level)
                found += notes
                for line in notes or [f"{task.name} {level} is sound; {tokenizer} can take every item"]:
                    display.say(f"{path}: {line}")
                continue
            if isinstance(task, DatasetTask):
                display.say(f"{path}: {task.name} {level} is sound; its rows are fetched when it is used")
                continue
            probe_set = make_probe_set(task, level, 1, seed=0)
            try:
                encode_probe_set(probe_set, CharacterTokenizer())
                reads = "synthetic models can read it"
            except ValueError:
                reads = "only models with a larger vocabulary can read it"
            example = probe_set.examples[0]
            display.say(f"{path}: {task.name} {level} is sound; {reads}: {(example.prompt or example.answer)[:60]}…")
    return EXIT_LOOK if found else EXIT_OK


def _looking(target: str, context: int | None) -> Callable[[Task, str], list[str]]:
    """Return what says, of a task and a level, which items the model of a tokenizer cannot take."""
    from pythiageo.measurement.examples import look_at_task, open_tokenizer

    tokenizer, known = open_tokenizer(target)
    return lambda task, level: look_at_task(task, level, tokenizer, context or known)
