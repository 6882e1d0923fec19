"""``pythiageo configs``: list, show, init."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pythiageo.cli import display
from pythiageo.errors import UserError
from pythiageo.locations import check_file, make_folder

app = typer.Typer(
    help="Config files that came with pythiageo: which there are, what is in one, a copy to edit.", no_args_is_help=True
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
NameArgument = Annotated[str, typer.Argument(metavar="CONFIG", help="Name of a config, as configs list gives it.")]


@app.command("list")
def list_configs(as_json: JsonOption = False) -> None:
    """List the config files that came with pythiageo, and the command that each is for.

    Example: pythiageo configs list
    """
    from pythiageo.config.shipped import shipped_configs

    found = shipped_configs()
    if as_json:
        display.print_json([{"config": one.name, "command": one.command, "what": one.what} for one in found])
        return
    rows = [(one.name, one.command.split()[0], one.what) for one in found]
    display.print_table("configs", ("config", "for", "what"), rows)
    display.say_next("configs show nano.toml", "configs init nano.toml --out mine.toml")


@app.command("show")
def show_config(name: NameArgument) -> None:
    """Print a config file.

    Example: pythiageo configs show demo/tasks.toml
    """
    from pythiageo.config.shipped import read_shipped

    display.say(read_shipped(name)[1].rstrip())


@app.command("init")
def init_config(
    name: NameArgument = "nano.toml",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The file to write; default its name, here.")] = None,
) -> None:
    """Write a copy of a config file to edit.

    Example: pythiageo configs init demo/tasks.toml --out mine.toml
    """
    from pythiageo.config.shipped import read_shipped
    from pythiageo.durable_files import replace_file

    config, text = read_shipped(name)
    path = Path(Path(config.name).name) if out is None else out
    check_file(path)
    if path.exists():
        raise UserError(f"{path} is there already: choose another name with --out")
    make_folder(path.parent)
    replace_file(path, text.encode(), "the copy was not written")
    display.say(f"{path}: a copy of {config.name}")
    if config.name.endswith(".sh"):
        return
    display.say_next(config.command.format(path))
