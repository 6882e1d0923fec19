"""Landscape measures of a checkpoint: the loss of a probe set as a problem of its plain module, and rows from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pythiageo.config.landscape import LandscapeConfig
from pythiageo.errors import CheckpointError, UserError
from pythiageo.landscape.gradient_rank import (
    GradientRank,
    first_parameters_covariance_rank,
    gradient_covariance_rank,
    gradient_effective_rank,
    random_batches,
)
from pythiageo.landscape.gram import gradient_gram
from pythiageo.landscape.hessian import Hessian, trace
from pythiageo.landscape.lanczos import Eigenvalues, top_eigenvalues
from pythiageo.landscape.measures import LANDSCAPE_GROUPS, get_landscape_measure
from pythiageo.landscape.problem import Problem
from pythiageo.measurement.failures import FAILED, Failures
from pythiageo.measurement.forest_loss import find_forest_logits
from pythiageo.measurement.landscape_result import LandscapeResult, llc_settings, measure_llc, undefined
from pythiageo.measurement.probe_loss import Cut, Logits, ScoredLogits, problem_of, shared_problem_of
from pythiageo.measurement.probe_sets import GEOMETRY, Prepared, Probe
from pythiageo.measurement.result import Origin
from pythiageo.measurement.subject import columns_of
from pythiageo.no_value import NoValue, NoValueError
from pythiageo.observations import Observation
from pythiageo.series.steps import select


def block_prefix(module: nn.Module, layers: int) -> str:
    """Return the name of the list of blocks, such as ``gpt_neox.layers``.

    Raises:
        CheckpointError: no list of so many modules, or several.
    """
    found = [name for name, part in module.named_modules() if isinstance(part, nn.ModuleList) and len(part) == layers]
    if len(found) != 1:
        raise CheckpointError(f"expected one list of {layers} blocks in {type(module).__name__}, found {found}")
    return found[0]


OF_MEAN_LOSS = {"first_parameters_covariance_rank", "hessian_top", "hessian_trace", "llc"}
"""Measures that need the loss of all examples, or of a batch, as a whole."""


@dataclass(frozen=True)
class Landscape:
    """The landscape measures of a run: which, of which tasks, at which steps."""

    config: LandscapeConfig
    measures: tuple[str, ...]
    steps: frozenset[int] | range
    tasks: tuple[str, ...]

    @classmethod
    def of(cls, config: LandscapeConfig, steps: Sequence[int], probes: Sequence[Probe]) -> Landscape:
        """Choose steps and tasks; by default few steps and the first task, since these measures are expensive.

        Raises:
            UserError: measures that there are not, steps or tasks that the run does not have, LLC settings that
                contradict each other.
        """
        names = [member for name in config.measures for member in LANDSCAPE_GROUPS.get(name, (name,))]
        measures = tuple(get_landscape_measure(name).name for name in dict.fromkeys(names))
        if "hessian_density" in measures:
            raise UserError("hessian_density is a curve, not a number of a table: see lanczos.spectral_density")
        if not measures:
            return cls(config, (), frozenset(), ())
        known = [probe.probe_set.task for probe in probes if probe.purpose == GEOMETRY]
        for task in config.tasks:
            if task not in known:
                raise UserError(f"measures.landscape.tasks: {task!r} is not probed; there are {', '.join(known)}")
        llc_settings(config, config.examples)
        # where nobody knows the steps before, they are a range, too long to be listed, and all are asked for
        chosen = steps if isinstance(steps, range) else frozenset(select(config.steps, list(steps)))
        return cls(config, measures, chosen, config.tasks or tuple(known[:1]))

    def rows(
        self,
        module: nn.Module,
        logits: Logits,
        layers: int,
        prepared: Sequence[Prepared],
        origin: Origin,
        nonfinite: str | None = None,
        scored: ScoredLogits | None = None,
        failures: Failures | None = None,
    ) -> list[Observation]:
        """Return the rows of one checkpoint, measured on the plain ``module``; none at a step that was not chosen.

        ``scored``, where the model has it, is a faster way to the same loss for what needs no single examples. Of any
        other model it is tried whether it has one on prefix forests.
        ``nonfinite`` says why the weights cannot be measured: then each measure has that status and reason. An error
        over one measure gives its row the status ``failed``, and is kept in ``failures``.
        """
        if origin.step not in self.steps:
            return []
        rows: list[Observation] = []
        failures = failures or Failures()
        probes = [one for one in prepared if one.probe.purpose == GEOMETRY and one.probe.probe_set.task in self.tasks]
        examples = [example for one in probes for example in one.encoded[: self.config.examples]]
        cut: Cut | None = None
        if scored is None and not nonfinite and examples and OF_MEAN_LOSS & set(self.measures):
            forests = find_forest_logits(module, examples)
            if forests is not None:
                scored, cut = forests, forests.cut
        for probe in probes:
            if not probe.kept:
                nothing = NoValue("undefined", "no item of the probe set can be measured")
                rows += self._fail(nothing, columns_of(probe), origin)
                continue
            try:
                restrictions = self._restrictions(module, layers)
            except CheckpointError as error:
                rows += self._fail(self._explain(error, failures), columns_of(probe), origin)
                continue
            for layer, parameters in restrictions:
                encoded = probe.encoded[: self.config.examples]
                columns = {**columns_of(probe), "layer": layer}
                try:
                    problem = problem_of(module, logits, encoded, parameters)
                    whole = problem
                    if scored is not None:
                        whole = shared_problem_of(module, scored, encoded, parameters, cut)
                except Exception as error:
                    rows += self._fail(self._explain(error, failures), columns, origin)
                    continue
                readout = f"parameters={','.join(parameters)};count={problem.size}"
                columns |= {"readout": readout, "n": problem.examples}
                if nonfinite:
                    rows += self._fail(NoValue("nonfinite", nonfinite), columns, origin)
                    continue
                rows += self._measure(problem, whole, columns, origin, failures)
        return rows

    def _fail(self, no_value: NoValue, columns: dict[str, Any], origin: Origin) -> list[Observation]:
        return [origin.failed(name, *no_value, **columns) for name in self.measures]

    def _explain(self, error: Exception, failures: Failures) -> NoValue:
        no_value = NoValue(FAILED, failures.reason(error, expensive=True))
        for name in self.measures:
            failures.note_lost(name, no_value.reason)
        return no_value

    def _restrictions(self, module: nn.Module, layers: int) -> list[tuple[int | None, tuple[str, ...]]]:
        if not self.config.per_layer:
            return [(None, self.config.parameters)]
        prefix = block_prefix(module, layers)
        return [(layer, (f"{prefix}.{layer}.*",)) for layer in range(layers)]

    def _measure(
        self, problem: Problem, whole: Problem, columns: dict[str, Any], origin: Origin, failures: Failures
    ) -> Iterator[Observation]:
        for result in _ProblemMeasurer(self.config, set(self.measures), problem, whole, failures).measure():
            if result.value is None:
                yield origin.failed(result.measure, result.status, result.reason or "", **columns)
            else:
                yield origin.row(measure=result.measure, value=result.value, stderr=result.stderr, **columns)


class _ProblemMeasurer:
    """Takes the measures of a problem; gradients and Hessian are made once for all that need them.

    ``whole`` is the same problem, for what needs the loss of all examples together.
    """

    def __init__(
        self, config: LandscapeConfig, measures: set[str], problem: Problem, whole: Problem, failures: Failures
    ) -> None:
        self._config = config
        self._measures = measures
        self._problem = problem
        self._whole = whole
        self._failures = failures

    def measure(self) -> Iterator[LandscapeResult]:
        """Yield the results of the measures."""
        wanted = self._measures
        if ranks := sorted(wanted & {"gradient_rank", "gradient_covariance_rank"}):
            yield from self._attempt(ranks, lambda: self._measure_gradient_ranks(wanted))
        if (first := "first_parameters_covariance_rank") in wanted:
            take = partial(first_parameters_covariance_rank, self._whole)
            yield from self._attempt([first], lambda: [self._measure_batches(first, take)])
        if of_hessian := sorted(wanted & {"hessian_top", "hessian_trace"}):
            yield from self._attempt(of_hessian, lambda: self._measure_hessian(wanted))
        if "llc" in wanted:
            yield from self._attempt(["llc"], lambda: measure_llc(self._config, self._whole))

    def _attempt(
        self, names: Sequence[str], take: Callable[[], Iterable[LandscapeResult]]
    ) -> Iterator[LandscapeResult]:
        """Yield the results of some measures; where taking them ends in an error, those that are not there yet say so.

        A measure leaves the module as it found it, however it ends (``Problem.evaluating``, ``walking``).
        """
        waiting = list(names)
        try:
            for result in take():
                waiting = [name for name in waiting if name != result.measure]
                yield result
        except Exception as error:
            reason = self._failures.reason(error, expensive=True)
            for name in waiting:
                self._failures.note_lost(name, reason)
                yield LandscapeResult(name, None, status=FAILED, reason=reason)

    def _make_generator(self, purpose: str) -> torch.Generator:
        """Return a generator of its own for each purpose: a measure's draws do not depend on which others are taken."""
        digest = hashlib.sha256(f"{self._config.seed}/{purpose}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

    def _measure_gradient_ranks(self, wanted: set[str]) -> Iterator[LandscapeResult]:
        gram = gradient_gram(self._problem)
        for name in sorted(wanted & {"gradient_rank", "gradient_covariance_rank"}):
            if isinstance(gram, NoValue):
                yield undefined(name, gram)
            elif name == "gradient_rank":
                yield _rank(name, gradient_effective_rank(gram))
            else:
                yield self._measure_batches(name, partial(gradient_covariance_rank, gram))

    def _measure_batches(self, name: str, take: Callable[[list[Tensor]], GradientRank | NoValue]) -> LandscapeResult:
        size = self._config.batch
        if self._problem.examples < 2 * size:
            reason = f"needs two batches of {size} examples, there are {self._problem.examples} examples"
            return LandscapeResult(name, None, status="undefined", reason=reason)
        batches = random_batches(self._problem.examples, size, self._make_generator("batches"))
        return _rank(name, take(batches))

    def _measure_hessian(self, wanted: set[str]) -> Iterator[LandscapeResult]:
        config = self._config
        try:
            with Hessian(self._whole, keep_graph=config.hessian.keep_graph) as hessian:
                if "hessian_top" in wanted:
                    yield from self._measure_eigenvalues(hessian)
                if "hessian_trace" in wanted:
                    found = trace(hessian, config.hessian.probes, self._make_generator("trace"))
                    if isinstance(found, NoValue):
                        yield undefined("hessian_trace", found)
                    else:
                        yield LandscapeResult("hessian_trace", found.value, found.stderr)
        except NoValueError as error:
            for name in sorted(wanted & {"hessian_top", "hessian_trace"}):
                yield undefined(name, error.no_value)

    def _measure_eigenvalues(self, hessian: Hessian) -> Iterator[LandscapeResult]:
        k = min(self._config.hessian.k, hessian.size)
        top = top_eigenvalues(hessian, k, self._make_generator("lanczos"))
        names = ["hessian_top", *(f"hessian_top_{number}" for number in range(2, k + 1))]
        for number, name in enumerate(names):
            if isinstance(top, NoValue):
                yield undefined(name, top)
            elif top.statuses[number] == "ok":
                yield LandscapeResult(name, float(top.values[number]))
            else:
                yield LandscapeResult(name, None, status=top.statuses[number], reason=_describe_uncertain(top, number))


def _describe_uncertain(top: Eigenvalues, number: int) -> str:
    reason = f"{float(top.values[number]):.4g}, residual {float(top.residuals[number]):.2g}"
    if top.statuses[number] == "imprecise":
        return f"{reason}: products are rounded too much to tell it from what is near"
    return f"{reason}: {top.products} products do not show that it is number {number + 1}"


def _rank(name: str, found: GradientRank | NoValue) -> LandscapeResult:
    return undefined(name, found) if isinstance(found, NoValue) else LandscapeResult(name, found.value)
