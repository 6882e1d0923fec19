"""What of a run is published: its rows, tables, page and manifest, in a folder that names nothing of this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from jinja2 import Environment, StrictUndefined

from pythiageo._version import __version__
from pythiageo.errors import UserError
from pythiageo.events import Run, open_run
from pythiageo.observations.excerpt import excerpt
from pythiageo.observations.export import wide, write_table
from pythiageo.observations.manifest import ModelFacts
from pythiageo.observations.privacy import own_names
from pythiageo.report import build_report

CARD, PAGE, PER_LAYER = "README.md", "report.html", "tables/per_layer.csv"
_TEMPLATE = Path(__file__).with_name("card.md.j2")
_CATEGORIES = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"))
"""The Hub's names for how many rows a data set has."""


@dataclass(frozen=True)
class Bundle:
    """A published run in a folder. ``files``: their names there, each of which is published, and nothing else is."""

    folder: Path
    name: str
    rows: int
    files: list[str]

    def size(self, name: str) -> int:
        """Return a file's size in bytes."""
        return (self.folder / name).stat().st_size


def write_bundle(
    run: Path, folder: Path, repo: str, measures: Sequence[str] = (), readouts: Sequence[str] = ()
) -> Bundle:
    """Write what is published of a run to ``folder``, which must not exist; no weights, no state to train on from.

    The folder is a run folder again. Page and tables are made of the published rows, not of the run's.

    Args:
        run: the run folder.
        folder: where to.
        repo: the data set it will be, for the card.
        measures, readouts: what is kept; empty: everything.

    Raises:
        UserError: no run, a measure or readout that it has not, or a path of this machine that would be published.
        MachineError: a file could not be written.
    """
    excerpt(run, folder, measures, readouts)
    published = open_run(folder)
    table = published.observations
    per_layer = table.filter(pl.col("layer").is_not_null() & pl.col("site").is_not_null()).height > 0
    if per_layer:
        (folder / PER_LAYER).parent.mkdir()
        write_table(wide(table), folder / PER_LAYER, "csv")
    build_report([folder], folder / PAGE)
    (folder / CARD).write_text(_card(repo, published, per_layer), encoding="utf-8")
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    bundle = Bundle(folder, str(published.manifest.name), table.height, files)
    _check(bundle, table, [run.resolve(), folder.resolve(), Path.home()])
    return bundle


def _card(repo: str, run: Run, per_layer: bool) -> str:
    """Return the data set's card: the Hub's facts at its head, and for people what the rows are."""
    table, made = run.observations, run.manifest.provenance
    steps, model = table["step"].unique().sort(), run.manifest.model or ModelFacts()
    measures = table.group_by("measure").agg(
        pl.len().alias("rows"), (pl.col("status") == "ok").sum().alias("ok"), pl.col("task").n_unique().alias("tasks")
    )
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        repo=repo,
        category=next((word for most, word in _CATEGORIES if table.height < most), "10M<n<100M"),
        facts={
            "series": _plain(table["series"][0]),
            "regime": _plain(table["regime"][0]),
            "size": _plain(table["size"][0]),
            "seed": _plain(table["seed"][0]),
            "architecture": _plain(model.architecture),
            "status": _plain(run.manifest.status),
            "checkpoints": f"{len(steps):,}, steps {steps[0]:,} to {steps[-1]:,}",
            "pythiageo": _plain(made.pythiageo),
            "commit": _plain(made.git_commit),
            "device": f"{_plain(made.device)}, {_plain(made.dtype)}",
            "packages": ", ".join(f"{_plain(k)} {_plain(v)}" for k, v in (made.packages or {}).items()),
        },
        measures=measures.sort("measure").rows(named=True),
        rows=table.height,
        per_layer=PER_LAYER if per_layer else None,
        version=__version__,
    )


def _plain(value: object) -> str:
    """Return a fact as one line of text that is no markup: manifests are strangers' files."""
    text = "-" if value is None else str(value)
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else " " if c in "\r\n" else c for c in text)[:300]


def _check(bundle: Bundle, table: pl.DataFrame, places: Sequence[Path]) -> None:
    """Refuse to publish what names one of these places of this machine.

    Raises:
        UserError: which file names which, or this machine or a Hub of one's own.
    """
    texts = {name: (bundle.folder / name).read_bytes() for name in bundle.files}
    for column in table.select(pl.col(pl.String)):  # packed in the file, and in the page
        texts[f"column {column.name}"] = "\n".join(column.drop_nulls().unique()).encode()
    for name in own_names():
        for file, content in texts.items():
            if name.encode() in content:
                raise UserError(f"{file} would name {name}, a host of yours; nothing was published")
    for place in places:
        # as text writes it and as JSON does; a root such as / says nothing of anybody
        forms = {f"{place}{os.sep}".encode(), json.dumps(f"{place}{os.sep}")[1:-1].encode()}
        for name, content in texts.items():
            if len(place.parts) > 1 and any(form in content for form in forms):
                raise UserError(f"{name} would name {place}, a folder of this machine; nothing was published")
