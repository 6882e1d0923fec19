"""Scores of one probe set at one checkpoint, and what stands beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from pythiageo.measurement.probe_sets import Prepared
from pythiageo.measurement.subject import Subject, columns_of
from pythiageo.no_value import NoValue
from pythiageo.observations import Observation
from pythiageo.probes.probeset import get_majority_rate
from pythiageo.probes.scoring import MEASURES, NonfiniteLogitsError, Score, score

UNSEEN = "accuracy_unseen"


def score_probe_set(subject: Subject) -> Iterator[Observation]:
    """Yield the rows of one probe set that is scored."""
    prepared, origin, no_value = subject.prepared, subject.origin, subject.no_value
    columns = columns_of(prepared)
    probe_set, n = prepared.probe.probe_set, len(prepared.kept)
    if n:
        # the control stands beside the rate at every step, so that the table alone can be judged
        majority = None if probe_set.majority_rate is None else get_majority_rate(prepared.examples)
        for measure, value in {"chance_accuracy": probe_set.chance, "majority_rate": majority}.items():
            if value is not None:
                yield origin.row(measure=measure, value=value, n=n, **columns)
    unseen = None if subject.met is None or not probe_set.generated else _unseen(prepared, subject.met)
    if unseen is not None and n:
        reason = None if unseen else f"training has met every prompt, so there is no {UNSEEN}"
        yield origin.row(measure="prompts_seen", value=1 - len(unseen) / n, n=n, reason=reason, **columns)
    results: list[Score] = []
    if no_value is None:
        try:
            right, options = subject.reading.answers(prepared), subject.reading.options(prepared)
            results = score(probe_set.rule, right, options)
            if unseen:
                results += [replace(score(probe_set.rule, right.select(unseen))[0], measure=UNSEEN)]
        except NonfiniteLogitsError as error:
            no_value = NoValue("nonfinite", str(error))
        except Exception as error:
            no_value = subject.explain(error)
            subject.unread.append(no_value.reason)
    if no_value is not None:
        names = [*MEASURES[probe_set.rule], *([UNSEEN] if unseen else [])]
        yield from (subject.failed(name, no_value, **columns) for name in names)
        return
    for result in results:
        if not math.isfinite(result.value):
            yield origin.failed(result.measure, "nonfinite", "the value is beyond float64", **columns)
            continue
        found = {"value": result.value, "stderr": result.stderr, "n": result.n, "reason": prepared.cuts}
        yield origin.row(measure=result.measure, **found, **columns)


def _unseen(prepared: Prepared, met: frozenset[str]) -> list[int]:
    """Return which of the examples that are kept have a prompt that training has not met, from 0."""
    return [place for place, example in enumerate(prepared.examples) if example.prompt not in met]
