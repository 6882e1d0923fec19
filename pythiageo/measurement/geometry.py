"""Scores, geometry and linear probe of one checkpoint: rows of its probe sets, from whatever reads the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any

from pythiageo.compute.device import load_solvers
from pythiageo.errors import CheckpointError
from pythiageo.geometry.bootstrap import Bootstrap
from pythiageo.geometry.dominance import find_dominance
from pythiageo.geometry.measure import Estimate, Measure
from pythiageo.geometry.rarefaction import Rarefaction
from pythiageo.geometry.readout import Readout
from pythiageo.geometry.sinks import Sinks
from pythiageo.geometry.view import SiteStates
from pythiageo.interrupts import wait_for_all
from pythiageo.measurement import sinks
from pythiageo.measurement.failures import Failures
from pythiageo.measurement.forward import Reading
from pythiageo.measurement.geometry_plan import GeometryPlan
from pythiageo.measurement.keeper import Keeper
from pythiageo.measurement.linear_probe import LinearProbe
from pythiageo.measurement.probe_sets import SCORE, Prepared
from pythiageo.measurement.rarefied import rarefied_rows
from pythiageo.measurement.reader import SiteReading
from pythiageo.measurement.result import Origin
from pythiageo.measurement.scores import score_probe_set
from pythiageo.measurement.subject import Subject, columns_of
from pythiageo.no_value import NoValue, NoValueError
from pythiageo.observations import Observation

LEFT_OUT = "items_left_out"
"""How many items of a probe set cannot be measured, with the reason which and why: a row where there are any."""
WORKSPACE = 8
"""Bytes that a site takes while it is measured, in those of its states: they, and three matrices of them in float64."""
TOKENS_LEFT_OUT = "tokens_left_out"
"""How many tokens of a probe set's texts are in no passage, of how many, and how they were cut."""
BLURRED = "rounding of bfloat16 states makes small singular values of its own: take float32 (docs/geometry.md)"


def observe(
    reading: Reading,
    probes: list[Prepared],
    plan: GeometryPlan,
    origin: Origin,
    nonfinite: str | None = None,
    report_share: Callable[[float], None] = lambda _: None,
    failures: Failures | None = None,
    keeper: Keeper | None = None,
    met: frozenset[str] | None = None,
) -> list[Observation]:
    """Return every observation of one checkpoint.

    What is measured of states is measured beside the next forward passes, on the threads of the reading.

    ``nonfinite`` says why the weights cannot be measured; then no forward pass is made, and every observation that
    would have been has the status ``nonfinite`` and that reason. ``report_share`` is told which share is done.
    An error over one measure, or over the passes of one probe set, gives rows of status ``failed``, and is kept in
    ``failures``. What the plan keeps beside the rows goes to ``keeper``. ``met``: the prompts that training has met,
    where it is known.

    Raises:
        CheckpointError: the passes of every probe set ended in an error.
    """
    failures = failures or Failures()
    keeper = keeper or Keeper(plan, origin, failures)
    found = list(_observe(reading, probes, plan, origin, nonfinite, report_share, failures, keeper, met))
    wait_for_all([part for part in found if isinstance(part, Future)])
    return [row for part in found for row in (part.result() if isinstance(part, Future) else [part])]


def _observe(
    reading: Reading,
    probes: list[Prepared],
    plan: GeometryPlan,
    origin: Origin,
    nonfinite: str | None,
    report_share: Callable[[float], None],
    failures: Failures,
    keeper: Keeper,
    met: frozenset[str] | None,
) -> Iterator[Observation | Future[list[Observation]]]:
    """Yield rows, or what is at work on them beside the next forward passes, in order."""
    unread: list[str] = []
    for number, prepared in enumerate(probes):
        report_share(number / len(probes))
        no_value = NoValue("nonfinite", nonfinite) if nonfinite else None
        if prepared.loss is not None:
            total = len(prepared.probe.probe_set.examples)
            found = {"value": float(len(prepared.left_out)), "n": total, "reason": prepared.loss}
            yield origin.row(measure=LEFT_OUT, **found, **columns_of(prepared))
            no_value = no_value if prepared.kept else NoValue("undefined", "no item of the probe set can be measured")
        if (cut := prepared.passages) is not None and prepared.kept:
            found = {"value": float(cut.left_out), "n": cut.tokens, "reason": cut.summary}
            yield origin.row(measure=TOKENS_LEFT_OUT, **found, **columns_of(prepared))
        subject = Subject(reading, prepared, plan, origin, no_value, failures, keeper, met)
        if prepared.probe.purpose == SCORE:
            yield from score_probe_set(subject)
        else:
            yield from _measure_sites(subject)
        unread += subject.unread
    if unread and len(unread) == sum(1 for prepared in probes if prepared.kept):
        raise CheckpointError(f"no probe set could be read: {unread[0]}")


def _measure_sites(subject: Subject) -> Iterator[Observation | Future[list[Observation]]]:
    reading, prepared, plan = subject.reading, subject.prepared, subject.plan
    bootstrap = plan.bootstrap(prepared) if prepared.kept else None
    rarefaction = plan.rarefaction(prepared) if prepared.kept else None
    every_value = any(measure.needs == "every value" for measure in plan.measures)
    below: SiteStates | None = None
    linear_probe = _make_linear_probe(subject)
    if linear_probe:
        yield from _attempt(subject, linear_probe.baselines, linear_probe.names(baselines=True))
    if plan.sinks:
        yield from _attempt(subject, partial(sinks.head_rows, subject), [sinks.SINK_RATE])
    for site, found, no_value in subject.states():
        first = site == next(iter(reading.sites))
        measures = [measure for measure in plan.measures if not (first and measure.needs == "layers")]
        place = {"layer": reading.sites[site], "site": site}
        columns = {**columns_of(prepared), **place}
        if linear_probe:
            probe = replace(linear_probe, unread=no_value) if no_value else linear_probe
            states = None if found is None else found.states
            yield from _attempt(subject, partial(probe.rows, states, **place), probe.names(), **place)
        if found is None:
            yield from _without_states(subject, measures, no_value, columns)
            continue
        if found.states.is_cuda:
            load_solvers(str(found.states.device))
        here = SiteStates(found.states, prepared.layout, every_value, below, plan.unit, _find_sinks(found, prepared))
        work = partial(_measure_site, subject, here, measures, (bootstrap, rarefaction), columns)
        yield reading.side_by_side.submit(work, WORKSPACE * found.states.nbytes)
        below = here.alone()


def _find_sinks(found: SiteReading, prepared: Prepared) -> Sinks | None:
    """Return which of the kept states are sinks, ``None`` where all are kept, which say it themselves."""
    if found.norms is None or prepared.places is None:
        return None
    return Sinks.of_norms(found.norms, prepared.lengths).at(prepared.places)


def _measure_site(
    subject: Subject,
    here: SiteStates,
    measures: list[Measure],
    resampled: tuple[Bootstrap | None, Rarefaction | None],
    columns: dict[str, Any],
) -> list[Observation]:
    plan, rows = subject.plan, list[Observation]()
    bootstrap, rarefaction = resampled
    if plan.sinks:
        take = partial(sinks.site_rows, subject, here, **columns)
        rows += _attempt(subject, take, sinks.OF_SITES, layer=columns["layer"], site=columns["site"])
    subject.keeper.keep_sketches(here, subject.prepared, columns)
    for number, readout in enumerate(plan.readouts):
        wanted = plan.measures_of(readout, measures)
        for measure in wanted:
            for name in plan.names_of(readout, measure) if plan.blurs(measure) else ():
                rows.append(subject.origin.failed(measure.name, "imprecise", BLURRED, readout=name, **columns))
        sharp = [measure for measure in wanted if not plan.blurs(measure)]
        at_all = list(_measure_readout(subject, here, readout, sharp, bootstrap, columns))
        rows += at_all
        subject.keeper.keep_spectrum(here, readout, columns)
        if rarefaction is not None:
            rows += rarefied_rows(subject, here, readout, at_all, rarefaction)
        if readout.positions not in {later.positions for later in plan.readouts[number + 1 :]}:
            here.rows(readout.positions).release()
    return rows


def _without_states(
    subject: Subject, measures: list[Measure], no_value: NoValue | None, columns: dict[str, Any]
) -> Iterator[Observation]:
    """Yield the rows of a site that could not be read."""
    assert no_value is not None
    subject.keeper.keep_no_value(no_value, columns)
    for readout in subject.plan.readouts:
        for measure in subject.plan.measures_of(readout, measures):
            for name in subject.plan.names_of(readout, measure):
                yield subject.failed(measure.name, no_value, readout=name, **columns)
    if subject.plan.sinks:
        yield from (subject.failed(name, no_value, **columns) for name in sinks.OF_SITES)


def _make_linear_probe(subject: Subject) -> LinearProbe | None:
    config, prepared = subject.plan.linear_probe, subject.prepared
    if config is None:
        return None
    return LinearProbe(config, subject.reading, prepared, subject.origin, columns_of(prepared), subject.no_value)


def _attempt(
    subject: Subject, take: Callable[[], Iterable[Observation]], names: Sequence[str], **place: Any
) -> Iterator[Observation]:
    """Yield rows of the linear probe or of sinks; where taking them ends in an error, the rows of ``names`` say so."""
    try:
        yield from list(take())
    except Exception as error:
        no_value = subject.explain(error)
        yield from (subject.failed(name, no_value, **columns_of(subject.prepared), **place) for name in names)


def _measure_readout(
    subject: Subject,
    here: SiteStates,
    readout: Readout,
    measures: list[Measure],
    bootstrap: Bootstrap | None,
    columns: dict[str, Any],
) -> Iterator[Observation]:
    origin = subject.origin
    columns = {**columns, "readout": readout.name}
    try:
        view = here.read(readout)
        columns["n"] = len(view.rows.matrix)
        left_out = [here.describe_left_out(readout)] if readout.spares_sinks else []
    except Exception as error:
        no_value = subject.explain(error)
        yield from (subject.failed(measure.name, no_value, **columns) for measure in measures)
        return
    if not columns["n"]:
        reason = f"no position is left: {left_out[0]}"
        yield from (origin.failed(measure.name, "undefined", reason, **columns) for measure in measures)
        return
    taken: dict[Measure, Estimate] = {}
    for measure in measures:
        if not (view.rows.finite if measure.needs != "layers" else view.finite):
            yield origin.failed(measure.name, "nonfinite", "states hold NaN or infinity", **columns)
            continue
        try:
            taken[measure] = measure.take(view)
        except NoValueError as error:
            yield origin.failed(measure.name, *error.no_value, **columns)
        except Exception as error:
            yield subject.failed(measure.name, subject.explain(error), **columns)
    dominated = find_dominance(here, readout) if any(measure.weighs_squares for measure in taken) else []
    noted = {measure: left_out + (dominated if measure.weighs_squares else []) for measure in taken}
    for measure, estimate in taken.items():
        noted[measure] += [estimate.note] if estimate.note else []
    resampled = [measure for measure in taken if measure.resamples]
    if bootstrap is not None:
        try:
            stderrs = bootstrap.stderrs(view, readout.positions, resampled)
        except Exception as error:  # the values stand
            stderrs, no_value = {}, subject.explain(error)
            for measure in resampled:
                lost = f"no standard error: {no_value.reason}"
                noted[measure].append(lost)
                subject.failures.note_lost(measure.name, lost)
        taken = {
            measure: estimate._replace(stderr=stderrs.get(measure.name, estimate.stderr))
            for measure, estimate in taken.items()
        }
    for measure, estimate in taken.items():
        found = {"value": estimate.value, "stderr": estimate.stderr, "reason": "; ".join(noted[measure]) or None}
        n = columns["n"] if estimate.n is None else estimate.n
        yield origin.row(measure=measure.name, **found, **{**columns, "n": n})
