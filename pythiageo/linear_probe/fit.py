"""Linear probe: multinomial logistic regression from the states at answer positions to the next token."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from pythiageo.linear_probe.split import split_by_example, split_by_position
from pythiageo.no_value import NoValueError
from pythiageo.stats.rates import rate_stderr


@dataclass(frozen=True)
class ProbeSettings:
    """How a probe is fitted and judged. The same settings and states give the same bits."""

    test_share: float = 0.2
    inverse_penalty: float = 1.0
    """scikit-learn's C: the sum of losses is multiplied by it, beside half the squared norm of the weights."""
    tolerance: float = 1e-4
    """Greatest entry of the mean loss's gradient at which the solver (L-BFGS) stops."""
    iterations: int = 500
    max_classes: int = 256
    """More classes than this are not fitted: cost and memory grow with them (running text has thousands)."""
    seed: int = 0


@dataclass(frozen=True)
class Rate:
    """A share of held-out rows, or a difference of two; ``stderr`` is ``None`` with one held-out example."""

    value: float
    stderr: float | None
    n: int


@dataclass(frozen=True)
class Split:
    """The rows of a probe set, their classes, and what is held out.

    ``labels`` (row): the next token. ``owner`` (row): its example. ``held_out`` (row). ``permuted`` (row): ``labels``
    in a random order, over all rows, for the control.
    """

    labels: Int[np.ndarray, " row"]
    owner: Int[np.ndarray, " row"]
    held_out: Bool[np.ndarray, " row"]
    permuted: Int[np.ndarray, " row"]

    @property
    def unseen(self) -> int:
        """Number of held-out rows whose class the fitted rows never show: no probe can be right there."""
        return int((~np.isin(self.labels[self.held_out], self.labels[~self.held_out])).sum())

    def rate(self, right: Float[np.ndarray, " held_out"]) -> Rate:
        """Return the mean over held-out rows, with a standard error that takes an example's rows to be dependent.

        ``sqrt(m / (m - 1) sum_e (sum_{i in e} (x_i - mean))^2) / n`` for n rows of m examples e; where all rows are
        alike, that of m examples (``rates.rate_stderr``).
        """
        n = len(right)
        _, example = np.unique(self.owner[self.held_out], return_inverse=True)
        m = int(example.max()) + 1
        residuals = np.bincount(example, weights=right - right.mean(), minlength=m)
        stderr = math.sqrt(m / (m - 1) * float(residuals @ residuals)) / n if m > 1 else None
        value = float(right.mean())
        return Rate(value, None if stderr is None else rate_stderr(value, stderr, m), n)

    def answer_rate(self, right: Float[np.ndarray, " held_out"]) -> Rate:
        """Return the share of held-out examples whose every held-out row is right; ``n`` counts examples.

        The standard error is that of a mean of ``n`` independent examples (``rates.rate_stderr``). It is a share of
        whole answers only where examples are held out whole.
        """
        _, example = np.unique(self.owner[self.held_out], return_inverse=True)
        whole = np.ones(int(example.max()) + 1)
        np.minimum.at(whole, example, right)
        n, value = len(whole), float(whole.mean())
        return Rate(value, rate_stderr(value, float(whole.std(ddof=1)) / math.sqrt(n), n) if n > 1 else None, n)

    def majority(self) -> Rate:
        """Return how often the fitted rows' most common class (of equals, the lowest token) is right on the others."""
        classes, counts = np.unique(self.labels[~self.held_out], return_counts=True)
        return self.rate((self.labels[self.held_out] == classes[counts.argmax()]).astype(float))


def make_split(
    labels: Int[np.ndarray, " row"], owner: Int[np.ndarray, " row"], by: str, settings: ProbeSettings
) -> Split:
    """Split the rows ``by`` example or position, by a random stream that the settings' seed alone fixes.

    Raises:
        NoValueError: fewer than two examples, a single class in all rows or in those to be fitted, more than
            ``max_classes``, or nothing held out.
    """
    if len(np.unique(owner)) < 2:
        raise NoValueError("a probe needs at least two examples")
    classes = len(np.unique(labels))
    if classes < 2:
        raise NoValueError("every answer position has the same next token: there is nothing to tell apart")
    if classes > settings.max_classes:
        raise NoValueError(f"{classes} different next tokens, more than max_classes = {settings.max_classes}")
    rng = np.random.Generator(np.random.PCG64(settings.seed))
    if by == "example":
        held_out = split_by_example(owner, settings.test_share, rng)
    else:
        held_out = split_by_position(labels, settings.test_share, rng)
    if not held_out.any():
        raise NoValueError("no position is held out: there are too few of them")
    permuted = rng.permutation(labels)
    if min(len(np.unique(labels[~held_out])), len(np.unique(permuted[~held_out]))) < 2:
        raise NoValueError("the positions to be fitted all have the same next token")
    return Split(labels, owner, held_out, permuted)


@dataclass(frozen=True)
class ProbeResult:
    """``accuracy`` on held-out rows, ``control`` the same with permuted labels, and their difference.

    ``answer``: of held-out examples, the share of which every row is right.
    """

    accuracy: Rate
    control: Rate
    selectivity: Rate
    answer: Rate


def fit_probe(states: Float[np.ndarray, "row d_model"], split: Split, settings: ProbeSettings) -> ProbeResult:
    """Fit a probe on the rows not held out and judge it on the others.

    argmin over W (class, d_model), b of ``C sum_i -log softmax(W z_i + b)[y_i] + |W|^2 / 2``, z the states less the
    fitted rows' mean, over their standard deviation (a constant feature is only centred). A held-out row of a class
    that the fitted rows never show counts as wrong (``Split.unseen``): leaving it out would flatter the probe beside
    the model's own accuracy at the same rows.

    The control refits with the labels permuted over all rows, so that only their frequencies are left; selectivity is
    accuracy less control (after Hewitt & Liang 2019, arXiv:1909.03368, whose control gives each word *type* a random
    label: that also measures how much a probe can memorise, and needs inputs that recur; this one does not).

    Invariant to shifts and positive scales of each feature.

    Raises:
        ValueError: states that are not finite.
        NoValueError: states that are all the same.
        NoValueError: ``not_converged``: the solver used up its iterations, or gave up.
    """
    if not np.isfinite(states).all():
        raise ValueError("states hold NaN or infinity")
    rounding = max(float(np.finfo(states.dtype).eps), 1e-12)
    fitted, judged = _features(states.astype(np.float64), split.held_out, rounding)
    right = _hits(fitted, judged, split.labels, split.held_out, settings)
    control = _hits(fitted, judged, split.permuted, split.held_out, settings)
    return ProbeResult(split.rate(right), split.rate(control), split.rate(right - control), split.answer_rate(right))


def warm_up() -> None:
    """Import the solver, which takes a second or two once a process."""
    import sklearn.linear_model  # noqa: F401, PLC0415


def _features(
    states: Float[np.ndarray, "row d_model"], held_out: Bool[np.ndarray, " row"], rounding: float
) -> tuple[Float[np.ndarray, "fitted feature"], Float[np.ndarray, "judged feature"]]:
    mean, spread = states[~held_out].mean(axis=0), states[~held_out].std(axis=0)
    # the standard deviation of a constant feature is rounding, not spread: of its type, or of the mean
    floor = rounding * np.abs(states[~held_out]).max(axis=0)
    if (spread <= floor).all():
        raise NoValueError("all states are the same")
    scaled = (states - mean) / np.where(spread <= floor, 1.0, spread)
    return project(scaled[~held_out], scaled[held_out])


def project(
    fitted: Float[np.ndarray, "fitted d_model"], judged: Float[np.ndarray, "judged d_model"]
) -> tuple[Float[np.ndarray, "fitted feature"], Float[np.ndarray, "judged feature"]]:
    """Return both in an orthonormal basis of the fitted rows' span, where they are fewer than the features.

    The weights that minimise loss plus |W|^2 lie in that span (a part outside it changes no fitted logit and adds to
    the norm), and a rotation changes neither logits nor norm: the same probe, of ``fitted`` features.
    """
    if len(fitted) >= fitted.shape[1]:
        return fitted, judged
    basis, _ = np.linalg.qr(fitted.T)
    return fitted @ basis, judged @ basis


def _hits(
    fitted: Float[np.ndarray, "fitted feature"],
    judged: Float[np.ndarray, "judged feature"],
    labels: Int[np.ndarray, " row"],
    held_out: Bool[np.ndarray, " row"],
    settings: ProbeSettings,
) -> Float[np.ndarray, " judged"]:
    """Return which held-out rows a probe gets right."""
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415 - takes a second to import
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # noqa: PLC0415

    model = LogisticRegression(C=settings.inverse_penalty, tol=settings.tolerance, max_iter=settings.iterations)
    # one thread: sums in one order, so the same bits on any number of cores
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            model.fit(fitted, labels[~held_out])
        except ConvergenceWarning:
            raise NoValueError(
                f"the probe did not converge to {settings.tolerance:g} within {settings.iterations} iterations",
                "not_converged",
            ) from None
        return (model.predict(judged) == labels[held_out]).astype(float)
