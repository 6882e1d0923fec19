"""Landscape measures of a checkpoint: the loss of a probe set as a problem of its plain module, and rows from it."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

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
from pythiageo.landscape.lanczos import top_eigenvalues
from pythiageo.landscape.llc import Settings, llc, named_settings
from pythiageo.landscape.measures import LANDSCAPE_GROUPS, get_landscape_measure
from pythiageo.landscape.problem import Piece, Problem
from pythiageo.landscape.undefined import NoValueError, Undefined
from pythiageo.observations import Observation
from pythiageo.probes.encoding import Encoded
from pythiageo.runs.config import LandscapeConfig
from pythiageo.runs.measuring import Origin, columns_of
from pythiageo.runs.probing import GEOMETRY, Prepared, Probe
from pythiageo.series.steps import select

_IGNORED = -100
_LOGITS = 2048
"""Greatest number of positions with logits in one piece: 50,304 columns of them take 0.4 GB, and their gradient too."""

_PASS = 256
"""What a pass costs beside its tokens, in tokens of all examples: a draw takes a part of them, and every pass."""

Logits = Callable[[Int[Tensor, "example position"], Int[Tensor, " scored"]], Float[Tensor, "example scored vocab"]]
"""A model's logits at some positions, with gradient."""


def logits_of(model: nn.Module) -> Logits:
    """Return how to ask a transformers model for logits: where it can, at the wanted positions only."""
    keeps = "logits_to_keep" in inspect.signature(model.forward).parameters

    def logits(ids: Tensor, positions: Tensor) -> Tensor:
        if keeps:
            return model(ids, use_cache=False, logits_to_keep=positions).logits
        return model(ids, use_cache=False).logits[:, positions]

    return logits


def problem_of(
    module: nn.Module, logits: Logits, encoded: Sequence[Encoded], parameters: Sequence[str] = ("*",)
) -> Problem:
    """Return the loss of ``encoded`` examples as a landscape problem.

    L is the mean over examples of the mean cross-entropy (nats) of an example's answer tokens, so a long answer weighs
    as much as a short one. Examples of similar length make a piece, padded at the end, which no earlier position of a
    causal model can see: a draw of a few examples then takes a few passes and not one for each length.

    Raises:
        UserError: no example, or a pattern that matches no parameter.
    """
    groups = list(_groups(encoded))
    places: dict[int, list[int]] = defaultdict(list)  # by width, which vmap knows; a number in the piece it would not
    for group in groups:
        scored = {p for example in group for p in example.answer_positions}
        places[_width(group)] = sorted(scored.union(places[_width(group)]))
    pieces: list[Piece] = []
    for group in groups:
        column = {position: k for k, position in enumerate(places[_width(group)])}
        targets = torch.full((len(group), len(column)), _IGNORED)
        ids = torch.zeros(len(group), _width(group), dtype=torch.long)
        for row, example in enumerate(group):
            targets[row, [column[p] for p in example.answer_positions]] = torch.tensor(example.targets)
            ids[row, : len(example.ids)] = torch.tensor(example.ids)
        pieces.append((ids, targets))

    def losses(piece: Piece) -> Tensor:
        ids, targets = piece
        flat = logits(ids, torch.tensor(places[ids.shape[1]])).flatten(0, 1)
        each = functional.cross_entropy(flat, targets.flatten(), ignore_index=_IGNORED, reduction="none")
        return each.view(targets.shape).sum(1) / (targets != _IGNORED).sum(1)

    return Problem(module, losses, pieces, parameters)


def _groups(encoded: Sequence[Encoded]) -> Iterator[list[Encoded]]:
    """Cut the examples, by length, where padding and passes together cost least."""
    by_length: dict[int, list[Encoded]] = defaultdict(list)
    for example in encoded:
        by_length[len(example.ids)].append(example)
    lengths = sorted(by_length)
    best: list[tuple[float, int]] = [(0.0, 0)]  # of the first k lengths: the cost, and where the last piece begins
    for last in range(1, len(lengths) + 1):
        options = []
        for first in range(last):
            group = [example for length in lengths[first:last] for example in by_length[length]]
            options.append((best[first][0] + _cost(group), first))
        best.append(min(options))
    cuts, last = [], len(lengths)
    while last:
        cuts.append((best[last][1], last))
        last = best[last][1]
    for first, last in reversed(cuts):
        group = [example for length in lengths[first:last] for example in by_length[length]]
        size = max(1, _LOGITS // _scored(group))
        yield from (group[start : start + size] for start in range(0, len(group), size))


def _cost(group: Sequence[Encoded]) -> float:
    """Return what passes over a piece cost, in tokens; a position with logits costs about half a token more."""
    return _PASS + len(group) * (_width(group) + 0.5 * _scored(group))


def _width(group: Sequence[Encoded]) -> int:
    return max(len(example.ids) for example in group)


def _scored(group: Sequence[Encoded]) -> int:
    return len({p for example in group for p in example.answer_positions})


def block_prefix(module: nn.Module, layers: int) -> str:
    """Return the name of the list of blocks, such as ``gpt_neox.layers``.

    Raises:
        CheckpointError: no list of so many modules, or several.
    """
    found = [name for name, part in module.named_modules() if isinstance(part, nn.ModuleList) and len(part) == layers]
    if len(found) != 1:
        raise CheckpointError(f"expected one list of {layers} blocks in {type(module).__name__}, found {found}")
    return found[0]


@dataclass(frozen=True)
class Landscape:
    """The landscape measures of a run: which, of which tasks, at which steps."""

    config: LandscapeConfig
    measures: tuple[str, ...]
    steps: frozenset[int]
    tasks: tuple[str, ...]

    @classmethod
    def of(cls, config: LandscapeConfig, steps: Sequence[int], probes: Sequence[Probe]) -> Landscape:
        """Choose steps and tasks; by default few steps and the first task, since these measures are dear.

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
        return cls(config, measures, frozenset(select(config.steps, list(steps))), config.tasks or tuple(known[:1]))

    def rows(
        self,
        module: nn.Module,
        logits: Logits,
        layers: int,
        prepared: Sequence[Prepared],
        origin: Origin,
        nonfinite: str | None = None,
    ) -> list[Observation]:
        """Return the rows of one checkpoint, measured on the plain ``module``; none at a step that was not chosen.

        ``nonfinite`` says why the weights cannot be measured: then each measure has that status and reason.
        """
        if origin.step not in self.steps:
            return []
        rows: list[Observation] = []
        for probe in prepared:
            if probe.probe.purpose == GEOMETRY and probe.probe.probe_set.task in self.tasks:
                for layer, parameters in self._restrictions(module, layers):
                    problem = problem_of(module, logits, probe.encoded[: self.config.examples], parameters)
                    readout = f"parameters={','.join(parameters)};count={problem.size}"
                    columns = {**columns_of(probe), "layer": layer, "readout": readout, "n": problem.examples}
                    if nonfinite:
                        rows += [origin.failed(name, "nonfinite", nonfinite, **columns) for name in self.measures]
                        continue
                    rows += self._measured(problem, columns, origin)
        return rows

    def _restrictions(self, module: nn.Module, layers: int) -> list[tuple[int | None, tuple[str, ...]]]:
        if not self.config.per_layer:
            return [(None, self.config.parameters)]
        prefix = block_prefix(module, layers)
        return [(layer, (f"{prefix}.{layer}.*",)) for layer in range(layers)]

    def _measured(self, problem: Problem, columns: dict[str, Any], origin: Origin) -> Iterator[Observation]:
        for result in _Taking(self.config, set(self.measures), problem).results():
            if result.value is None:
                yield origin.failed(result.measure, result.status, result.reason or "", **columns)
            else:
                yield origin.row(measure=result.measure, value=result.value, stderr=result.stderr, **columns)


@dataclass(frozen=True)
class _Result:
    measure: str
    value: float | None
    stderr: float | None = None
    status: str = "ok"
    reason: str | None = None


class _Taking:
    """Takes the measures of a problem; gradients and Hessian are made once for all that need them."""

    def __init__(self, config: LandscapeConfig, measures: set[str], problem: Problem) -> None:
        self._config = config
        self._measures = measures
        self._problem = problem

    def results(self) -> Iterator[_Result]:
        """Yield the results of the measures."""
        wanted = self._measures
        if wanted & {"gradient_rank", "gradient_covariance_rank"}:
            yield from self._gradient_ranks(wanted)
        if "first_parameters_covariance_rank" in wanted:
            take = partial(first_parameters_covariance_rank, self._problem)
            yield self._with_batches("first_parameters_covariance_rank", take)
        if wanted & {"hessian_top", "hessian_trace"}:
            yield from self._hessian(wanted)
        if "llc" in wanted:
            yield self._llc()

    def _generator(self, purpose: str) -> torch.Generator:
        """Return a generator of its own for each purpose: a measure's draws do not depend on which others are taken."""
        digest = hashlib.sha256(f"{self._config.seed}/{purpose}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

    def _gradient_ranks(self, wanted: set[str]) -> Iterator[_Result]:
        gram = gradient_gram(self._problem)
        for name in sorted(wanted & {"gradient_rank", "gradient_covariance_rank"}):
            if isinstance(gram, Undefined):
                yield _undefined(name, gram)
            elif name == "gradient_rank":
                yield _rank(name, gradient_effective_rank(gram))
            else:
                yield self._with_batches(name, partial(gradient_covariance_rank, gram))

    def _with_batches(self, name: str, take: Callable[[list[Tensor]], GradientRank | Undefined]) -> _Result:
        size = self._config.batch
        if self._problem.examples < 2 * size:
            reason = f"needs two batches of {size} examples, there are {self._problem.examples} examples"
            return _Result(name, None, status="undefined", reason=reason)
        batches = random_batches(self._problem.examples, size, self._generator("batches"))
        return _rank(name, take(batches))

    def _hessian(self, wanted: set[str]) -> Iterator[_Result]:
        config = self._config
        try:
            with Hessian(self._problem, keep_graph=config.hessian.keep_graph) as hessian:
                if "hessian_top" in wanted:
                    yield from self._eigenvalues(hessian)
                if "hessian_trace" in wanted:
                    found = trace(hessian, config.hessian.probes, self._generator("trace"))
                    if isinstance(found, Undefined):
                        yield _undefined("hessian_trace", found)
                    else:
                        yield _Result("hessian_trace", found.value, found.stderr)
        except NoValueError as error:
            for name in sorted(wanted & {"hessian_top", "hessian_trace"}):
                yield _undefined(name, error.undefined)

    def _eigenvalues(self, hessian: Hessian) -> Iterator[_Result]:
        k = min(self._config.hessian.k, hessian.size)
        top = top_eigenvalues(hessian, k, self._generator("lanczos"))
        names = ["hessian_top", *(f"hessian_top_{number}" for number in range(2, k + 1))]
        for number, name in enumerate(names):
            if isinstance(top, Undefined):
                yield _undefined(name, top)
            elif not top.converged:
                reason = f"{float(top.values[number]):.4g}, residual {float(top.residuals[number]):.2g}, not converged"
                yield _Result(name, None, status="not_converged", reason=f"{reason} in {top.products} products")
            else:
                yield _Result(name, float(top.values[number]))

    def _llc(self) -> _Result:
        estimate = llc(self._problem, llc_settings(self._config, self._problem.examples), self._config.seed)
        if isinstance(estimate, Undefined):
            return _undefined("llc", estimate)
        if estimate.findings:
            number = "no value" if estimate.value is None else f"{estimate.value:.4g} +- {estimate.stderr:.2g}"
            reasons = "; ".join(finding.reason for finding in estimate.findings)
            return _Result("llc", None, status=estimate.status, reason=f"{number}: {reasons}")
        return _Result("llc", estimate.value, estimate.stderr)


def llc_settings(config: LandscapeConfig, examples: int) -> Settings:
    """Return the named settings with what the config replaces; ``n_beta`` and ``beta`` replace one another.

    Raises:
        UserError: settings that there are not, or that contradict each other.
    """
    given: dict[str, Any] = config.llc.model_dump(exclude={"setting"}, exclude_none=True)
    if "n_beta" in given or "beta" in given:
        given = {"n_beta": None, "beta": None, **given}
    return dataclasses.replace(named_settings(config.llc.setting, examples), **given)


def _undefined(name: str, undefined: Undefined) -> _Result:
    return _Result(name, None, status=undefined.status, reason=undefined.reason)


def _rank(name: str, found: GradientRank | Undefined) -> _Result:
    return _undefined(name, found) if isinstance(found, Undefined) else _Result(name, found.value)
