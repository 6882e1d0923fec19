"""The same rows of two matrices at every step of a series: what an audit by value looks at, within a bound of bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Protocol, runtime_checkable

from safetensors import SafetensorError
from safetensors.torch import load, save

from pythiageo.errors import CheckpointError
from pythiageo.interrupts import map_in_threads
from pythiageo.series.files.kept import KeptAnswers
from pythiageo.series.files.slices import Rows, read_rows
from pythiageo.series.files.weight_files import SAFETENSORS, Revision

LIMIT = 200_000_000
"""Bytes that are read of a series, at most, headers included."""
_MOST, _LEAST = 2**19, 2**14
"""Bytes of a matrix at a step, if it were stored in float32."""
_HEADERS = 2**17
"""Bytes of headers that are reckoned with at a step."""
_READERS = 8
"""Steps read at the same time."""

Sample = Mapping[str, Rows]
"""Rows of matrices, by what these are (``EMBEDDING``, ``MIDDLE``)."""


@runtime_checkable
class Readable(Protocol):
    """A series of whose files any bytes can be read alone."""

    def read_bytes(self, revision: Revision, name: str, start: int, count: int) -> bytes:
        """Return ``count`` bytes of a weight file of a revision. Raises ``CheckpointError``."""


@dataclass(frozen=True)
class Samples:
    """What was read. ``unread``: why a step was not. ``read_bytes``: of files now; the rest was kept from before."""

    by_step: Mapping[int, Sample]
    unread: Mapping[int, str]
    read_bytes: int


def choose_budget(count: int) -> int:
    """Return the bytes of a matrix at each of ``count`` steps, a power of two, so that all stay below ``LIMIT``."""
    share = (LIMIT // max(1, count) - _HEADERS) // 2
    return 2 ** (max(_LEAST, min(_MOST, share)).bit_length() - 1)


def most_bytes(count: int) -> int:
    """Return the bytes that reading ``count`` steps takes at most."""
    return min(LIMIT, count * (2 * choose_budget(count) + _HEADERS))


def read_samples(
    series: Readable, revisions: Sequence[Revision], kept: KeptAnswers, report: Callable[[int, int], None]
) -> Samples:
    """Read the same rows at every step. Steps that hold the same files are read once; ``kept``: read before.

    Raises:
        MachineError: the Hub cannot be reached.
    """
    budget = choose_budget(len(revisions))
    reader = _Reader(series, kept, budget)
    unread = {one.step: _why_not(one) for one in revisions if one.step is not None}
    by_content: dict[tuple[str, ...], list[Revision]] = {}
    for one in revisions:
        if one.step is not None and unread[one.step] is None:
            by_content.setdefault(_contents(one), []).append(one)
    found: dict[int, Sample] = {}
    alike = list(by_content.values())
    read = map_in_threads(lambda same: reader.read(same[0]), alike, _READERS)
    for done, (same, (sample, why)) in enumerate(zip(alike, read, strict=True), start=1):
        for one in same:
            assert one.step is not None
            if sample is None:
                unread[one.step] = why
            else:
                found[one.step] = sample
        report(done, len(alike))
    kept.prune()
    reasons = {step: reason for step, reason in sorted(unread.items()) if reason is not None}
    return Samples(dict(sorted(found.items())), reasons, reader.read_bytes)


class _Reader:
    """Reads revisions, and counts the bytes."""

    def __init__(self, series: Readable, kept: KeptAnswers, budget: int) -> None:
        self._series = series
        self._kept = kept
        self._budget = budget
        self._lock = Lock()
        self.read_bytes = 0

    def read(self, revision: Revision) -> tuple[Sample | None, str]:
        key = ("rows-1", str(self._budget), *_contents(revision))
        if (answer := self._kept.get(key)) is not None and (sample := _unpack(answer)) is not None:
            return sample, ""
        try:
            sample = read_rows(revision, lambda *asked: self._read(revision, *asked), self._budget)
        except CheckpointError as error:
            return None, str(error)
        if revision.commit is not None:
            self._kept.put(key, _pack(sample))
        return sample, ""

    def _read(self, revision: Revision, name: str, start: int, count: int) -> bytes:
        with self._lock:
            if self.read_bytes + count > LIMIT:
                raise CheckpointError(f"{LIMIT // 10**6} MB of the series are read, and no more is")
            self.read_bytes += count
        return self._series.read_bytes(revision, name, start, count)


def _why_not(revision: Revision) -> str | None:
    """Return why a revision's weights cannot be read by value, ``None`` where they can."""
    if revision.absent is not None:
        return revision.absent
    if SAFETENSORS not in revision.formats:
        return f"it has .{revision.formats[0]} weights alone, of which no range can be read" if revision.formats else (
            "it has no weights"
        )  # fmt: skip
    return revision.problem(SAFETENSORS)


def _contents(revision: Revision) -> tuple[str, ...]:
    return tuple(part for file in revision.read_files(SAFETENSORS) for part in (file.name, file.content))


def _pack(sample: Sample) -> bytes:
    told = {role: json.dumps([rows.name, rows.shape, rows.first]) for role, rows in sample.items()}
    return save({role: rows.values for role, rows in sample.items()}, told)


def _unpack(answer: bytes) -> Sample | None:
    """Return a sample that was kept; its bytes are those that were written."""
    length = int.from_bytes(answer[:8], "little")
    try:
        told = json.loads(answer[8 : 8 + length])["__metadata__"]
        tensors = load(answer)
        places = {role: json.loads(told[role]) for role in tensors}
    except (ValueError, KeyError, SafetensorError):
        return None
    return {role: Rows(name, tuple(shape), first, tensors[role]) for role, (name, shape, first) in places.items()}
