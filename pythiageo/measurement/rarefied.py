"""Rows of ranks at a stated number of rows, beside those at all rows that there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from pythiageo.geometry.rarefaction import Rarefaction
from pythiageo.geometry.readout import Readout, examples_of
from pythiageo.geometry.view import SiteStates
from pythiageo.measurement.failures import FAILED
from pythiageo.measurement.subject import Subject
from pythiageo.names import AT_ROWS
from pythiageo.no_value import NoValueError
from pythiageo.observations import Observation


def rarefied_rows(
    subject: Subject, here: SiteStates, readout: Readout, at_all: Sequence[Observation], rarefaction: Rarefaction
) -> Iterator[Observation]:
    """Yield the ranks of one readout at so many rows; ``at_all`` are its rows at all that there are.

    A rank without a value at all of them has none at fewer, for the same reason; so with what dominates its matrix.
    """
    ranks = {measure.name: measure for measure in subject.plan.measures if measure.kind == "rank"}
    name = readout.name + AT_ROWS + str(rarefaction.rows)
    rows = {row.measure: row for row in at_all if row.measure in ranks}
    wanted = [ranks[measure] for measure, row in rows.items() if row.value is not None]
    view = here.read(readout)
    without = view.rows.without
    examples = examples_of(here.layout, readout.positions, None if without is None else without.all)
    if subject.prepared.owner is not None:
        examples = torch.tensor(subject.prepared.owner)[examples]
    no_value, found = None, {}
    try:
        found = rarefaction.take(view, examples, wanted) if wanted else {}
    except NoValueError as error:
        no_value = error.no_value
    except Exception as error:
        no_value = subject.explain(error)
    for measure, row in rows.items():
        empty = row._replace(readout=name, value=None, stderr=None, n=rarefaction.rows)
        if row.value is None:
            yield empty
        elif no_value is not None:
            if no_value.status == FAILED:
                subject.failures.note_lost(measure, no_value.reason)
            yield empty._replace(status=no_value.status, reason=no_value.reason)
        else:
            yield empty._replace(value=found[measure].value, stderr=found[measure].stderr)
