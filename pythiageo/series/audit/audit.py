"""Whether the revisions of a series hold what their names say: by the hashes of their weight files, and by values.

``judge`` is a pure function from a table of files to one verdict a step. docs/audit.md has the rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

from pythiageo.errors import UserError
from pythiageo.series.audit.record import describe_record
from pythiageo.series.audit.rules import INCOMPLETE, MISSING, SOUND, SUSPECT, VERDICTS, Finding, Recurrence, name_steps
from pythiageo.series.audit.samples import Readable, read_samples
from pythiageo.series.audit.values import ValueAudit, judge_values
from pythiageo.series.files.kept import KeptAnswers
from pythiageo.series.files.weight_files import FORMATS, Revision, WeightFile
from pythiageo.series.layout import Layout


class StepAudit(NamedTuple):
    """The verdict on one step; ``shares_with``: other steps that serve one of its files."""

    step: int
    revision: str
    commit: str | None
    verdict: str
    shares_with: tuple[int, ...]
    files: tuple[WeightFile, ...]
    reason: str


@dataclass(frozen=True)
class Audit:
    """Verdicts on a series, ascending by step, one for each step it has or should have."""

    repo: str
    steps: tuple[StepAudit, ...]
    main: Revision | None
    main_equals: tuple[int, ...]
    """Steps that serve all weights of ``main``."""
    formats: dict[str, dict[str, int]]
    """For each format: steps that have it whole, and how many different weights they hold."""
    formats_differ: tuple[int, ...]
    """Steps at which ``.safetensors`` and ``.bin`` recur at different other steps."""
    remarks: tuple[str, ...] = ()
    """What the series itself says, such as revisions that are not read as steps."""
    values: ValueAudit | None = None
    """What a few rows of each step have shown, where they were read."""

    @property
    def sound(self) -> bool:
        """Whether no step needs a look."""
        return all(step.verdict in SOUND for step in self.steps)

    @property
    def counts(self) -> dict[str, int]:
        """Number of steps by verdict, mildest first."""
        found = Counter(step.verdict for step in self.steps)
        return {verdict: found[verdict] for verdict in VERDICTS if found[verdict]}

    def only(self, steps: Collection[int]) -> Audit:
        """Return the same audit with what concerns these steps alone; it rests on all of the series."""
        values = self.values and self.values.only(steps)
        return replace(self, steps=tuple(step for step in self.steps if step.step in steps), values=values)

    def with_values(self, values: ValueAudit) -> Audit:
        """Return the same audit, in which a step whose values say against its name is in doubt."""
        against: dict[int, list[str]] = {}
        for found in values.findings:
            if found.doubted:
                against.setdefault(found.step, []).append(found.reason)
        steps = [
            step if step.step not in against else _doubt(step, "; ".join(dict.fromkeys(against[step.step])))
            for step in self.steps
        ]
        return replace(self, steps=tuple(steps), values=values)

    def notes(self) -> list[str]:
        """Return what there is to say of the series as a whole."""
        notes = list(self.remarks)
        if self.main is not None and not self.main_equals and self.main.files:
            notes.append("main serves weights that no step serves whole")
        elif self.main_equals:
            notes.append(f"main serves the weights of {name_steps(self.main_equals)}")
        if self.formats_differ:
            notes.append(
                f".safetensors and .bin recur differently at {name_steps(self.formats_differ)}: one of the two at "
                f"least is not of its step"
            )
        if unhashed := [step.step for step in self.steps if any(file.sha256 is None for file in step.files)]:
            notes.append(
                f"the listing has no sha256 of weights of {name_steps(unhashed)}: what is fetched of them is checked "
                f"by its size alone"
            )
        return [*notes, *(self.values.notes() if self.values else ())]

    def as_json(self) -> dict[str, Any]:
        """Return the audit as plain values, with what is needed to cite it."""
        return {
            **describe_record(self.repo, ((step.step, step.commit, step.files) for step in self.steps)),
            "steps": [
                {**step._asdict(), "shares_with": list(step.shares_with), "files": _files(step.files)}
                for step in self.steps
            ],
            "main": self.main
            and {
                "revision": self.main.revision,
                "commit": self.main.commit,
                "shares_with": list(self.main_equals),
                "files": _files(self.main.files),
            },
            "formats": self.formats,
            "formats_differ": list(self.formats_differ),
            "summary": self.counts,
            "notes": self.notes(),
            **({"values": self.values.as_json()} if self.values else {}),
        }


def judge(
    repo: str, revisions: Iterable[Revision], main: Revision | None = None, expected: Sequence[int] = ()
) -> Audit:
    """Return one verdict for each step of ``revisions`` and of ``expected``.

    Args:
        repo: the repository's or folder's name.
        revisions: the steps there are, in any order.
        main: what ``main`` serves, if there is one.
        expected: the steps that the series is known to have; those not there are ``missing``, and the last of them is
            known to be what ``main`` should serve.

    Raises:
        ValueError: a step is there twice, or there is none.
    """
    rows: dict[int, Revision] = {}
    for revision in revisions:
        if revision.step is None or revision.step in rows:
            raise ValueError(f"step {revision.step} is there twice, or is no step")
        rows[revision.step] = revision
    steps = sorted({*rows, *expected})
    if not steps:
        raise ValueError("an audit needs steps")
    everyone = list(rows.values()) + ([main] if main else [])
    last = steps[-1]
    tables = {kind: Recurrence(kind, everyone, last, bool(expected)) for kind in FORMATS}
    differ = _differing(tables)
    audited = [_audit_step(step, rows.get(step), tables, step in differ) for step in steps]
    equal: set[int] = set()
    for table in tables.values():
        equal |= {step for step in table.same(None) if step is not None} if None in table.whole else set()
    return Audit(
        repo=repo,
        steps=tuple(audited),
        main=main,
        main_equals=tuple(sorted(equal)),
        formats={
            kind: {"steps": len(table.whole.keys() - {None}), "distinct": table.distinct()}
            for kind, table in tables.items()
            if table.whole
        },
        formats_differ=tuple(sorted(differ)),
    )


@runtime_checkable
class Auditable(Protocol):
    """A series whose weight files can be listed without opening them."""

    @property
    def name(self) -> str:
        """The repository or folder."""

    @property
    def expected(self) -> tuple[int, ...]:
        """The steps it is known to have, or none."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences on what of it is not read."""

    def inventory(self, report: Callable[[int, int], None]) -> list[Revision]:
        """Return the weight files of every step, and of ``main`` (whose step is ``None``) if there is one."""


@runtime_checkable
class Keeping(Protocol):
    """A series that keeps what it was answered."""

    @property
    def kept(self) -> KeptAnswers:
        """Where it does."""


@runtime_checkable
class LaidOut(Protocol):
    """A series that says where each checkpoint lies."""

    layout: Layout


def audit_series(
    series: Auditable,
    expected: Sequence[int],
    report: Callable[[int, int], None],
    report_values: Callable[[int, int], None] | None = None,
) -> Audit:
    """List the weight files of a series and judge its steps; see ``judge`` and the series' ``inventory``.

    ``report`` is told how many of how many are listed. With ``report_values``, which is told how many are read, a few
    rows of each step are read, too, and judged (``judge_values``).

    Raises:
        UserError: a series of whose files no part can be read, where values are asked for.
        MachineError: the Hub cannot be reached.
    """
    revisions = series.inventory(report)
    main = next((revision for revision in revisions if revision.step is None), None)
    steps = [revision for revision in revisions if revision.step is not None]
    found = judge(series.name, steps, main, expected)
    kept = series.kept if isinstance(series, Keeping) else KeptAnswers()
    if report_values is not None:
        found = found.with_values(_read_values(series, steps, kept, report_values))
    return replace(found, remarks=(*series.remarks, *kept.notes))


def _read_values(
    series: Auditable, steps: Sequence[Revision], kept: KeptAnswers, report: Callable[[int, int], None]
) -> ValueAudit:
    if not isinstance(series, Readable):
        raise UserError(f"{series.name}: of this kind of series no part of a file can be read alone")
    samples = read_samples(series, steps, kept, report)
    places = series.layout.places if isinstance(series, LaidOut) else {}
    return judge_values(samples, {step: place.stage for step, place in places.items()})


def _doubt(step: StepAudit, reason: str) -> StepAudit:
    """Return a step whose values say against its name; a worse verdict stands."""
    worse = VERDICTS.index(step.verdict) > VERDICTS.index(SUSPECT)
    own = "" if step.verdict in SOUND else f"{step.reason}; "
    return step._replace(verdict=step.verdict if worse else SUSPECT, reason=f"{own}{reason}")


def _audit_step(step: int, revision: Revision | None, tables: dict[str, Recurrence], differs: bool) -> StepAudit:
    if revision is None:
        return StepAudit(step, f"step{step}", None, MISSING, (), (), "there is no revision of this step")
    finding = _find(step, revision, tables)
    reason = finding.reason
    if differs:
        each = ", ".join(f".{kind}: {table.find(step).verdict}" for kind, table in tables.items())
        reason = f"{reason}; .safetensors and .bin recur differently here ({each})"
    files = tuple(sorted(revision.files))
    return StepAudit(step, revision.revision, revision.commit, finding.verdict, finding.shares_with, files, reason)


def _find(step: int, revision: Revision, tables: dict[str, Recurrence]) -> Finding:
    if revision.absent is not None:
        return Finding(MISSING, revision.absent)
    if not revision.formats:
        return Finding(INCOMPLETE, "no weight files")
    if problem := revision.problem(revision.formats[0]):
        return Finding(INCOMPLETE, problem)
    found = [tables[kind].find(step) for kind in revision.formats if revision.problem(kind) is None]
    worst = max(found, key=lambda finding: VERDICTS.index(finding.verdict))
    shares = sorted({other for finding in found for other in finding.shares_with})
    lost = [problem for kind in revision.formats if (problem := revision.problem(kind))]
    return Finding(worst.verdict, "; ".join([worst.reason, *lost]), tuple(shares))


def _differing(tables: dict[str, Recurrence]) -> set[int]:
    """Return the steps whose files recur at other revisions in one format than in the other.

    Only revisions that have both formats whole are compared.
    """
    first, second = tables.values()
    both = first.whole.keys() & second.whole.keys()
    return {
        step
        for step in both
        if step is not None
        and any(of(first, step) & both != of(second, step) & both for of in (Recurrence.same, Recurrence.partly))
    }


def _files(files: Iterable[WeightFile]) -> list[dict[str, Any]]:
    return [{"name": file.name, "sha256": file.sha256, "size": file.size} for file in files]
