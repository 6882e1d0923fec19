"""``pythiageo tasks``: list, show, check."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pythiageo.cli import display
from pythiageo.errors import UserError

if TYPE_CHECKING:
    from pythiageo.probes.encoding import Tokenizer
    from pythiageo.probes.probeset import Example

app = typer.Typer(
    help="Task files: what is there, what an example looks like, whether a file is right.",
    no_args_is_help=True,
)

FolderOption = Annotated[Path | None, typer.Option("--tasks-folder", help="A folder of task files of your own.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@app.command("list")
def list_tasks(tasks_folder: FolderOption = None, as_json: JsonOption = False) -> None:
    """List all tasks with their levels and the chance of a constant reply."""
    from pythiageo.probes.task import load_tasks

    tasks = load_tasks(tasks_folder).values()
    rows: list[dict[str, Any]] = [
        {
            "task": task.name,
            "version": task.version,
            "kind": task.kind,
            "description": task.description,
            "chance": {level: task.chance(level) for level in task.levels},
        }
        for task in tasks
    ]
    if as_json:
        display.print_json(rows)
        return
    display.print_table(
        "tasks",
        ("task", "version", "kind", "description", "level: chance"),
        [
            (
                *list(row.values())[:4],
                ", ".join(f"{level}: {chance:.3g}" for level, chance in row["chance"].items()),
            )
            for row in rows
        ],
    )


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Task name.")],
    level: Annotated[str | None, typer.Option(help="Level; default: every level.")] = None,
    examples: Annotated[int, typer.Option(min=1, help="Examples a level.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the probe set.")] = 0,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Folder with a tokenizer.json; default: the 41 characters.")
    ] = None,
    tasks_folder: FolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show examples as the model sees them, with the answer positions marked."""
    from pythiageo.probes.encoding import CharacterTokenizer, FileTokenizer
    from pythiageo.probes.probeset import make_probe_set
    from pythiageo.probes.task import get_task, load_tasks

    task = get_task(load_tasks(tasks_folder), name)
    chosen: Tokenizer = FileTokenizer(tokenizer) if tokenizer else CharacterTokenizer()
    shown: list[dict[str, Any]] = []
    for one in [level] if level else list(task.levels):
        probe_set = make_probe_set(task, one, examples, seed)
        shown.append(
            {
                "level": one,
                "chance": probe_set.chance,
                "probe_set": probe_set.sha,
                "examples": [_example(example, chosen) for example in probe_set.examples],
            }
        )
    if as_json:
        display.print_json({"task": task.name, "levels": shown})
        return
    typer.echo(f"{task.name} version {task.version}: {task.description} ({task.source})")
    typer.echo("fed: one cell a token; answer: the token each marked position must predict\n")
    for block in shown:
        typer.echo(f"{block['level']}  chance {block['chance']:.3g}  probe set {block['probe_set']}")
        for example in block["examples"]:
            _print_example(example)


def _example(example: Example, chosen: Tokenizer) -> dict[str, Any]:
    from pythiageo.probes.encoding import encode_example

    encoded = encode_example(example, chosen)
    return {
        "text": example.prompt + example.answer,
        "fed": [chosen.show(i) for i in encoded.ids],
        "answer_positions": list(encoded.answer_positions),
        "equals_position": encoded.equals_position,
        "targets": [chosen.show(i) for i in encoded.targets],
    }


def _print_example(example: dict[str, Any]) -> None:
    predicts = dict(zip(example["answer_positions"], example["targets"], strict=True))
    cells = [
        (token.replace(" ", "␣"), predicts.get(position, "").replace(" ", "␣"))
        for position, token in enumerate(example["fed"])
    ]
    widths = [max(len(fed), len(target)) for fed, target in cells]
    for label, column in (("fed   ", 0), ("answer", 1)):
        row = "│".join(cell[column].ljust(width) for cell, width in zip(cells, widths, strict=True))
        typer.echo(f"  {label} {row.rstrip() if column else row}")
    typer.echo("")


@app.command()
def check(files: Annotated[list[Path], typer.Argument(help="Task files.")]) -> None:
    """Check task files; say what is wrong with the first that is."""
    from pythiageo.probes.encoding import CharacterTokenizer, encode_probe_set
    from pythiageo.probes.probeset import make_probe_set
    from pythiageo.probes.task import read_task

    for path in files:
        if not path.is_file():
            raise UserError(f"{path}: no such task file")
        task = read_task(path)
        for level in task.levels:
            probe_set = make_probe_set(task, level, 1, seed=0)
            try:
                encode_probe_set(probe_set, CharacterTokenizer())
                reads = "synthetic models can read it"
            except ValueError:
                reads = "only models with a larger vocabulary can read it"
            typer.echo(f"{path}: {task.name} {level} is sound; {reads}: {probe_set.examples[0].prompt}…")
