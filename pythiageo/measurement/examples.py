"""A look at a run's examples before anything is measured: which items its model cannot take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pythiageo.config.runs import AnalyzeConfig
from pythiageo.errors import CheckpointError, UserError
from pythiageo.measurement.failures import concerns_all, describe_error
from pythiageo.measurement.probe_sets import GEOMETRY, SCORE, Prepared, Probe, check_left, choose_probes, notes, prepare
from pythiageo.probes.encoding import FileTokenizer
from pythiageo.probes.kinds import DatasetTask, ItemTask, Task
from pythiageo.probes.probeset import ProbeSet, make_probe_set
from pythiageo.probes.rows import read_rows
from pythiageo.series import open_series
from pythiageo.series.checkpoint import Checkpoint, Described, checkpoints_of
from pythiageo.series.kinds import TRIED, KindError
from pythiageo.series.model_shape import ModelShape
from pythiageo.series.steps import select
from pythiageo.series.tokenizers import NamedTokenizer, read_tokenizer
from pythiageo.untrusted_files import is_plain

EXAMPLES = 200
"""Examples of a generated or a large task that are looked at."""


class _NoTokenizerError(UserError):
    """A checkpoint has no tokenizer of its own, and none was named."""


@dataclass(frozen=True)
class Ahead:
    """A checkpoint as it will be, without its weights; the probe sets under its tokenizer, which lies in ``folder``."""

    shape: ModelShape
    prepared: list[Prepared]
    folder: Path

    @property
    def notes(self) -> list[str]:
        """Which items are left out or not fed whole, a sentence a probe set."""
        return notes(self.prepared)


def look_ahead(
    checkpoints: Sequence[Checkpoint],
    probes: list[Probe],
    scratch: Path,
    everything: bool = True,
    tokenizer: NamedTokenizer | None = None,
) -> Ahead:
    """Read config and tokenizer of the first checkpoint that can be read; of the Hub only these are fetched.

    Args:
        checkpoints: those of the run; the first few are tried.
        probes: its probe sets.
        scratch: a folder for what is fetched.
        everything: refuse a checkpoint at which nothing is left of a probe set.
        tokenizer: in place of those of the checkpoints.

    Raises:
        CheckpointError: none of those that were tried can be read.
        UserError: all that can be read are refused: of a kind that is not measured (``series.kinds``), without a
            tokenizer, or, where ``everything``, because nothing is left.
    """
    refused: Exception | None = None
    for number, checkpoint in enumerate(checkpoints[:TRIED]):
        try:
            folder = checkpoint.describe(scratch / str(number))
            shape = ModelShape.read(folder, checkpoint.label)
            place = folder if tokenizer is None else tokenizer.write(scratch / "tokenizer")
            if not is_plain(place / "tokenizer.json"):
                raise _NoTokenizerError(
                    f"{checkpoint.label}: there is no tokenizer.json beside its weights: name the tokenizer that it "
                    f"was trained with, --tokenizer OWNER/NAME or --tokenizer FOLDER"
                )
            reader = FileTokenizer(place)
        except (KindError, _NoTokenizerError) as error:
            refused = refused if isinstance(refused, UserError) else UserError(str(error))
            continue
        except Exception as error:
            if concerns_all(error) and not isinstance(error, UserError):
                raise
            refused = refused or CheckpointError(f"{checkpoint.label}: {describe_error(error)}")
            continue
        prepared = prepare(probes, reader, shape.context, strict=False)
        try:
            if everything:
                check_left(prepared)
        except UserError as error:
            refused = error if not isinstance(refused, UserError) else refused
            continue
        return Ahead(shape, prepared, place)
    raise refused or CheckpointError("there is no checkpoint to look at")


def look_at(config: AnalyzeConfig) -> list[str]:
    """Return which items a run of ``config`` will leave out or not feed whole, a sentence a probe set.

    Raises:
        UserError: no such target, steps or tasks; nothing is left of a probe set.
        CheckpointError: no checkpoint can be read.
        MachineError: the Hub cannot be reached.
    """
    series = open_series(config.target, config.naming)
    steps = select(config.steps, series.steps())
    named_tokenizer = None if config.tokenizer is None else read_tokenizer(config.tokenizer)
    checkpoints, probes = list(checkpoints_of(series, steps)), choose_probes(config.probes)
    with TemporaryDirectory() as scratch:
        return look_ahead(checkpoints, probes, Path(scratch), tokenizer=named_tokenizer).notes


def look_at_task(task: Task, level: str, tokenizer: FileTokenizer, context: int | None) -> list[str]:
    """Return which items of a level are left out or not fed whole: the first ones, as a run takes them."""
    if isinstance(task, DatasetTask):
        count = len(read_rows(task, level, EXAMPLES))
    else:
        count = len(task.levels[level].items) if isinstance(task, ItemTask) else EXAMPLES
    probe_set: ProbeSet = make_probe_set(task, level, count, seed=0)
    probes = [Probe(probe_set, purpose) for purpose in (SCORE, GEOMETRY)]
    return notes(prepare(probes, tokenizer, context, strict=False))


def open_tokenizer(target: str) -> tuple[FileTokenizer, int | None]:
    """Return the tokenizer of a folder, a ``tokenizer.json`` or a repository, and the context of the model beside it.

    Raises:
        UserError: there is none.
        CheckpointError: a revision or a config that cannot be read.
        MachineError: the Hub cannot be reached.
    """
    with TemporaryDirectory() as scratch:
        path = Path(target).expanduser()
        if path.is_file():
            return FileTokenizer(path), None
        if not (path / "tokenizer.json").is_file():
            series = open_series(target)
            known = series if isinstance(series, Described) else next(checkpoints_of(series, series.steps()[:1]))
            path = known.describe(Path(scratch))
        context = ModelShape.read(path, target).context if (path / "config.json").is_file() else None
        return FileTokenizer(path), context
