"""Where each checkpoint of a series lies on one axis: stages joined, parallel runs apart, nothing left out unsaid."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pythiageo.errors import UserError, nearest
from pythiageo.series.names import STEPS, Named, StepNames
from pythiageo.series.registry import Entry, Stage, find_entry
from pythiageo.series.steps import shortened

MAIN = "main"
"""The branch that stands for the end of training, and is no step."""


@dataclass(frozen=True)
class Place:
    """A checkpoint's place: its name, the number on the series' axis, tokens seen, and stage."""

    name: str
    step: int
    tokens: int | None
    stage: str | None = None
    seed: str | None = None


@dataclass(frozen=True)
class Layout:
    """The checkpoints of a series by step, ascending, and what of it is not read.

    ``unit``: what the steps count. ``unread``: names that say no step that is known. ``left_out``: sentences that say
    what else is not read, and how it is asked for.
    """

    places: Mapping[int, Place]
    unit: str = STEPS
    unread: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Naming:
    """What a person says of a series' names: where nothing is said, what is known of it counts.

    ``pattern``: how checkpoints are named, as for ``StepNames``. ``stages``: those to read; ``seed``: which of several
    models in one repository; ``tokens_per_step``: in place of what is known; ``folder``: more files of series.

    Raises:
        UserError: a pattern that is no regular expression, or has no group ``step``.
    """

    pattern: str | None = None
    stages: tuple[str, ...] | None = None
    seed: str | None = None
    tokens_per_step: int | None = None
    folder: Path | None = None

    def __post_init__(self) -> None:
        StepNames(self.pattern)

    def entry_of(self, repository: str) -> Entry | None:
        """Return what is known of a repository's series. Raises as ``load_entries``."""
        return find_entry(repository, self.folder)

    def arrange(self, names: Iterable[str], where: str, entry: Entry | None = None) -> Layout:
        """Return the layout of a series whose checkpoints have these names. Raises as ``arrange``."""
        found = arrange(names, where, entry, self.pattern, self.stages, self.seed)
        if self.tokens_per_step is None:
            return found
        if found.unit != STEPS:
            raise UserError(f"{where}: --tokens-per-step, but its names count {found.unit}, not steps")
        places = {step: replace(place, tokens=step * self.tokens_per_step) for step, place in found.places.items()}
        return replace(found, places=places)


def arrange(
    names: Iterable[str],
    where: str,
    entry: Entry | None = None,
    pattern: str | None = None,
    stages: Collection[str] | None = None,
    seed: str | None = None,
) -> Layout:
    """Return the layout of a series whose checkpoints have these names.

    With an ``entry``, its stages are joined on one axis. Without one, what counts steps of its own (a stage, a parallel
    run) cannot be joined: the first stage is read and the others are left out by name. ``pattern``: the names to read,
    in place of all that is known. ``stages``: those to read; ``seed``: the one to read where there are several.

    Raises:
        UserError: two names of one step; several seeds or parallel runs and none chosen; a stage that is not there.
    """
    there = sorted(set(names))
    if pattern is not None:
        own = StepNames(pattern)
        found = {name: named for name in there if (named := own.parse(name) or _parse_path(own, name))}
        rate = entry.tokens_per_step // entry.names_per_step if entry and entry.tokens_per_step else None
        return _plain(there, found, where, stages, seed, rate)
    if entry is not None and entry.stages:
        return _joined(there, where, entry, stages, seed)
    reader = StepNames(names_per_step=entry.names_per_step if entry else 1, unit=entry.unit if entry else STEPS)
    found = {name: named for name in there if (named := reader.parse(name) or _parse_path(reader, name))}
    return _plain(there, found, where, stages, seed, entry.tokens_per_step if entry else None)


def _parse_path(reader: StepNames, path: str) -> Named | None:
    """Return what the last part of a path says that says something; the rest of the path is its stage."""
    parts = path.split("/")
    for index in reversed(range(len(parts) if len(parts) > 1 else 0)):
        if named := reader.parse(parts[index]):
            stage = [*parts[:index], *([named.stage] if named.stage else []), *parts[index + 1 :]]
            return named._replace(stage="/".join(stage))
    return None


def _plain(
    names: list[str],
    found: dict[str, Named],
    where: str,
    stages: Collection[str] | None,
    seed: str | None,
    tokens_per_step: int | None,
) -> Layout:
    """Lay out a series of which nothing is known but its names."""
    left: list[str] = []
    unread = [name for name in names if name not in found and name != MAIN]
    found = _of_one_seed(found, seed, where, left)
    kinds = _group(found)
    if stages is not None:
        _check_stages(stages, [kind or "" for kind in kinds], where)
        chosen = [kind for kind in kinds if (kind or "") in stages]
        if len(chosen) > 1:
            raise UserError(
                f"{where}: {_listed(chosen)} each count steps of their own, and how they join is not known: choose one"
                f" with --stage, or say how in a file of the series (--series-folder)"
            )
    else:
        chosen = _first_stage(list(kinds), where)
    for kind, of_kind in kinds.items():
        if kind not in chosen:
            stage = f"--stage {kind} reads them" if kind else "they count steps of no named stage"
            left.append(f"{_left_out(of_kind, kind or 'no stage')}: {stage}")
    kept = {name: named for kind in chosen for name, named in kinds[kind].items()}
    units = {named.unit for named in kept.values()}
    if len(units) > 1:
        raise UserError(f"{where}: some names count {' and others '.join(sorted(units))} ({shortened(list(kept))})")
    unit = units.pop() if units else STEPS
    places = [
        Place(
            name,
            named.step,
            named.tokens
            if named.tokens is not None or tokens_per_step is None or unit != STEPS
            else named.step * tokens_per_step,
            named.stage,
            named.seed,
        )
        for name, named in kept.items()
    ]
    return _layout(places, unit, unread, left, where)


def _joined(names: list[str], where: str, entry: Entry, stages: Collection[str] | None, seed: str | None) -> Layout:
    """Lay out a known series: its stages one after the other."""
    read: dict[str, dict[str, Named]] = {}
    left: list[str] = []
    taken: set[str] = set()
    for stage in entry.stages:
        reader = StepNames(stage.pattern, entry.names_per_step, entry.unit, f"{entry.name}: pattern")
        free = [name for name in names if name not in taken]
        if stage.names:
            found = {name: Named(stage.names.index(name) + 1, None) for name in free if name in stage.names}
        else:
            found = {name: named for name in free if (named := reader.parse(name))}
        taken |= found.keys()
        read[stage.name] = found
    kept = _of_one_seed({name: named for found in read.values() for name, named in found.items()}, seed, where, left)
    if stages is not None:
        _check_stages(stages, [stage.name for stage in entry.stages], where)
    places: list[Place] = []
    remarks: list[str] = []
    ends: dict[str, tuple[int, int | None]] = {}
    for stage in entry.stages:
        found = {name: named for name, named in read[stage.name].items() if name in kept}
        begin, tokens = ends.get(stage.follows or "", (0, 0))
        offset = 0 if stage.go_on else begin
        seen = [_place(name, named, stage, entry, offset, begin, tokens) for name, named in found.items()]
        last = max(seen, key=lambda place: place.step, default=None)
        rate = stage.tokens_per_step or entry.tokens_per_step
        if stage.steps is not None:
            end = offset + stage.steps
            held = stage.tokens or (stage.steps * rate if rate else None)
            ends[stage.name] = (end, None if tokens is None or held is None else tokens + held)
        else:
            ends[stage.name] = (last.step, last.tokens) if last else (begin, tokens)
        asked = stage.name in stages if stages is not None else not stage.optional
        if asked:
            places += seen
            before = next((one for one in entry.stages if one.name == stage.follows), None)
            if found and before is not None and before.steps is None and not stage.go_on:
                remarks.append(f"{stage.name} is taken to begin at the last checkpoint of {before.name}, step {begin}")
        elif found:
            left.append(f"{_left_out(found, stage.name)}: --stage {stage.name} reads them")
    unread = [name for name in names if name not in taken and name != MAIN]
    return _layout(places, entry.unit, unread, left, where, remarks)


def _place(name: str, named: Named, stage: Stage, entry: Entry, offset: int, begin: int, before: int | None) -> Place:
    """Return a checkpoint's place; ``offset``: what its number is added to, ``begin`` and ``before``: where its stage
    begins, in steps and in tokens."""
    step = offset + named.step
    rate = stage.tokens_per_step or entry.tokens_per_step
    own = named.tokens
    if own is None and rate is not None and entry.unit == STEPS:
        own = (step - begin) * rate
    elif stage.go_on and own is not None:
        return Place(name, step, own, stage.name, named.seed)
    return Place(name, step, None if own is None or before is None else before + own, stage.name, named.seed)


def _layout(
    places: list[Place], unit: str, unread: list[str], left: list[str], where: str, remarks: Sequence[str] = ()
) -> Layout:
    by_step: dict[int, Place] = {}
    for place in sorted(places, key=lambda place: (place.step, place.name)):
        if (other := by_step.get(place.step)) is not None:
            raise UserError(
                f"{where}: {other.name} and {place.name} are both step {place.step}: choose one kind with "
                f"--step-pattern, such as 'stage1-step(?P<step>[0-9]+).*'"
            )
        by_step[place.step] = place
    counted = () if unit == STEPS or not places else (f"names count {unit}, not steps: so does the column step",)
    return Layout(by_step, unit, tuple(unread), tuple(left), (*counted, *remarks))


def _of_one_seed(found: dict[str, Named], seed: str | None, where: str, left: list[str]) -> dict[str, Named]:
    """Return the names of one seed (or size) of a repository that holds several."""
    seeds = sorted({named.seed for named in found.values() if named.seed is not None})
    if not seeds:
        if seed is not None:
            raise UserError(f"{where}: no name says a seed, so there is no {seed!r} to choose")
        return found
    if seed is None:
        if len(seeds) > 1:
            raise UserError(f"{where}: holds {len(seeds)} models ({', '.join(seeds[:8])}): choose one with --seed")
        seed = seeds[0]
    if seed not in seeds:
        raise UserError(f"{where}: no {seed!r}{nearest(seed, seeds)}; there are {', '.join(seeds)}")
    others = [name for name, named in found.items() if named.seed not in (None, seed)]
    if others:
        left.append(f"{_left_out(others, 'other seeds or sizes')}: --seed chooses")
    return {name: named for name, named in found.items() if named.seed in (None, seed)}


def _group(found: dict[str, Named]) -> dict[str | None, dict[str, Named]]:
    kinds: dict[str | None, dict[str, Named]] = {}
    for name, named in found.items():
        kinds.setdefault(named.stage, {})[name] = named
    return kinds


def _first_stage(kinds: list[str | None], where: str) -> list[str | None]:
    """Return the stage that comes first: the only one, that of no name, or ``stage1``; none where there are none."""
    if len(kinds) <= 1:
        return kinds
    if None in kinds:
        return [None]
    if "stage1" in kinds:
        return ["stage1"]
    raise UserError(
        f"{where}: {_listed(kinds)} are parts that each count steps of their own, and which is first is not known: "
        f"choose one with --stage"
    )


def _check_stages(asked: Collection[str], there: list[str], where: str) -> None:
    for stage in asked:
        if stage not in there:
            raise UserError(
                f"{where}: no stage {stage!r}{nearest(stage, there)}; there are {', '.join(map(repr, there)) or 'none'}"
            )


def _listed(kinds: Iterable[str | None]) -> str:
    return ", ".join(kind or "those without a stage" for kind in kinds)


def _left_out(names: Collection[str], of: str) -> str:
    return f"{len(names)} of {of} {'is' if len(names) == 1 else 'are'} left out ({shortened(list(names))})"
