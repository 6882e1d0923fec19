"""What the rows of a run came from, held against what is there now before the run goes on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pythiageo.errors import UserError
from pythiageo.observations import Manifest
from pythiageo.observations.manifest import CheckpointEntry, Pending
from pythiageo.progress import Progress, Reporter
from pythiageo.runs.choose_steps import StepChoice
from pythiageo.runs.folder import RunFolder
from pythiageo.runs.provenance import NUMBERS
from pythiageo.series.audit.rules import MISSING, NEIGHBOUR, name_steps
from pythiageo.series.checkpoint import Series
from pythiageo.series.origin import Lasting, Source

IDENTITY = ("series", "regime", "size", "seed")
_NAMED = 3


@dataclass(frozen=True)
class Moved:
    """What is not what it was when a run's rows were measured; nothing of it: the run goes on."""

    whole: tuple[str, ...] = ()
    """What concerns every row, in words."""
    probes: tuple[tuple[str, str], ...] = ()
    """Tasks and levels whose probe set is another."""
    steps: Mapping[int, list[str]] = field(default_factory=dict)
    """Steps whose checkpoint is another, and what of it."""
    gone: tuple[int, ...] = ()
    """Steps that are not in the series any more, and that no later one vouches for."""

    def __bool__(self) -> bool:
        return bool(self.whole or self.probes or self.steps or self.gone)

    def parts(self) -> list[str]:
        """Return all of it in words."""
        found = list(self.whole)
        if self.probes:
            names = [f"{task} {level}" for task, level in self.probes]
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            found.append(f"other questions in {', '.join(names[:_NAMED])}{more}")
        by_reason: dict[str, list[int]] = defaultdict(list)
        for step, reasons in sorted(self.steps.items()):
            for reason in reasons:
                by_reason[reason].append(step)
        found += [f"{reason} at {name_steps(steps)}" for reason, steps in by_reason.items()]
        if self.gone:
            found.append(f"no checkpoint any more at {name_steps(self.gone)}")
        return found

    def refuse(self, path: Path, remedy: str) -> None:
        """Raise the ``UserError`` that names all of it, if there is any."""
        if self:
            raise UserError(
                f"{path}: what its rows were measured on is not what is there now: {'; '.join(self.parts())}: {remedy}"
            )


def find_moved_facts(before: Manifest, now: Mapping[str, Any]) -> Moved:
    """Return what moved of code and probe sets, and of those facts of the manifest ``now`` that a run never changes.

    ``before``: the manifest of the run as it was left; of one without a row nothing can have moved.
    """
    if not any(one.weight_sha for one in before.checkpoints):
        return Moved()
    measured, said = before.provenance, before.as_json()
    version = measured.numbers
    whole = []
    if version != NUMBERS:
        whole.append(
            f"pythiageo {measured.pythiageo} measured it, whose numbers are of version {version}, this one's of "
            f"{NUMBERS}"
        )
    for key in (*IDENTITY, "data_tasks"):
        if key in said and key in now and said[key] != now[key]:
            what = "other tasks to train on" if key == "data_tasks" else f"{key} {now[key]} instead of {said[key]}"
            whole.append(what)
    if (then := _sha(before.corpus)) and then != _sha(now.get("corpus")):
        whole.append("another corpus")
    return Moved(tuple(whole), _moved_probes(said.get("probe_sets", []), now["probe_sets"]))


def check_unmoved(folder: RunFolder, now: Mapping[str, Any]) -> None:
    """Refuse to go on with a run that follows a training, and cannot be measured anew, where something moved.

    Raises:
        UserError: something did.
    """
    if folder.before is not None:
        find_moved_facts(folder.before, now).refuse(folder.path, "start anew, or take another name")


def _sha(corpus: Mapping[str, Any] | None) -> str | None:
    return corpus.get("sha256") if corpus else None


def _moved_probes(then: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, str], ...]:
    """Return task and level of every probe set that one of two lists has otherwise, or has not."""
    if not then:  # killed before it noted them
        return ()
    old, new = ({(one["task"], one["level"]): one for one in each} for each in (then, now))
    return tuple(
        name
        for name in dict.fromkeys([*new, *old])
        if name not in old
        or name not in new
        or any(old[name].get(key) != new[name][key] for key in old[name].keys() & new[name].keys())
    )


def moved_since(
    folder: RunFolder, series: Series, choice: StepChoice, now: Mapping[str, Any], report: Reporter
) -> Moved:
    """Return what moved since the rows of an analysis were measured: its checkpoints too, one by one.

    Where every row is in doubt the checkpoints are not looked at.
    """
    before = folder.before
    if before is None:
        return Moved()
    facts = find_moved_facts(before, now)
    if facts.whole:
        return facts
    measured = {one.step: one for one in before.checkpoints if one.weight_sha and one.status != NEIGHBOUR}
    there, steps, gone, last = set(series.steps()), {}, [], -1
    for done, (step, entry) in enumerate(sorted(measured.items())):
        report(Progress(str(before.name), done, len(measured), f"comparing {entry.label} with what was measured"))
        found = choice.left_out.get(step)
        if step not in there or (found is not None and found.verdict == MISSING):
            gone.append(step)
        elif found is not None and before.unlisted:  # nothing moved: now it is audited by all
            continue
        elif found is not None:
            steps[step] = [f"{found.verdict} weights, as the audit says,"]
        elif isinstance(series, Lasting) and (reasons := series.moved(step, entry.weight_sha or "", _source(entry))):
            steps[step] = reasons
        else:
            last = step
    # weights that are still there were trained from those before them
    return Moved((), facts.probes, steps, tuple(step for step in gone if step > last))


def _source(entry: CheckpointEntry) -> Source | None:
    known = entry.source
    return Source(known["commit"], known["files"]) if known else None


def go_on(folder: RunFolder, moved: Moved, now: Mapping[str, Any], refresh: bool) -> None:
    """Begin a run, or go on with one: forget what moved if it is to be measured ``refresh``ed, else refuse it.

    Rows of probe sets that moved are taken out of what stays; ``pending`` in the manifest has where they are due.

    Raises:
        UserError: something moved, and was not to be measured anew.
    """
    if not refresh:
        also = ", drops what is gone" if moved.gone else ""
        moved.refuse(
            folder.path,
            f"--refresh measures anew what moved{also}; --overwrite starts anew, another --out keeps this run",
        )
    entries, pending = folder.manifest.checkpoints, folder.manifest.pending
    lost = {one.step for one in entries} if moved.whole else {*moved.steps, *moved.gone}
    if moved.probes and not moved.whole:
        due = {(task, level) for task, level in pending.probes} if pending else set()
        steps = [one.step for one in entries if one.weight_sha and one.status != NEIGHBOUR]
        pending = Pending(probes=sorted([*{*due, *moved.probes}]), steps=steps)
    if pending:
        pending = pending.without(lost)
    folder.forget(lost, **now, pending=pending)
    if pending:
        due = {(task, level) for task, level in pending.probes}
        for step in set(pending.steps) & set(folder.observations.steps()):
            rows = folder.observations.rows(step)
            kept = [row for row in rows if (row.task, row.level) not in due]
            if not kept:
                folder.forget([step])
            elif len(kept) < len(rows):
                folder.observations.write(step, kept)
