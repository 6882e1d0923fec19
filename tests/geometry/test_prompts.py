"""Measures of one prompt's states at a time: closed forms, planted truth, dense references, what is left out."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pythiageo.geometry.measure import Estimate, load_measures
from pythiageo.geometry.prompts import CHUNK, Prompts
from pythiageo.geometry.readout import READOUTS, Layout
from pythiageo.geometry.view import SiteStates
from pythiageo.no_value import NoValueError

MEASURES = load_measures()
OF_PROMPTS = [name for name, measure in MEASURES.items() if measure.needs == "prompts"]
ENTROPIES = ["prompt_entropy", "prompt_entropy_normalised", "prompt_entropy_skean"]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def take(name: str, *prompts: torch.Tensor) -> Estimate:
    found = MEASURES[name].function(Prompts.of(list(prompts)))
    assert isinstance(found, Estimate)
    return found


def texts(width: int = 12) -> list[torch.Tensor]:
    """Prompts of several lengths, shorter and longer than they are wide, with a common mean and one massive state."""
    found = [normal(length, width, seed=length) + 0.5 for length in (2, 3, 7, 12, 13, 30, 7, 3)]
    found[5][0] *= 100
    return found


def entropy(weights: np.ndarray) -> float:
    p = weights[weights > 0] / weights[weights > 0].sum()
    return float(-(p * np.log(p)).sum())


def clipped(rows: np.ndarray) -> float:
    gram = rows.T @ rows if len(rows) > rows.shape[1] else rows @ rows.T
    return entropy(np.linalg.eigvalsh(np.maximum(gram, 0)))


def unit(prompt: torch.Tensor) -> np.ndarray:
    rows = prompt.numpy() - prompt.numpy().mean(axis=0)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def angles(rows: np.ndarray) -> list[float]:
    steps = np.diff(rows, axis=0)
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairwise(steps)]
    return [math.acos(max(-1.0, min(1.0, float(cosine)))) for cosine in cosines]


REFERENCES = {
    "prompt_entropy": lambda x: entropy(np.linalg.svd(x.numpy(), compute_uv=False) ** 2),
    "prompt_entropy_normalised": lambda x: (
        entropy(np.linalg.svd(x.numpy(), compute_uv=False) ** 2) / math.log(min(x.shape))
    ),
    "prompt_entropy_skean": lambda x: clipped(unit(x)),
    "curvature": lambda x: float(np.mean(angles(x.numpy()))),
    "curvature_skean": lambda x: float(np.mean([min(a, math.pi - a) for a in angles(unit(x))])),
}
"""One prompt's number in NumPy's float64, by singular values and arc cosines in place of Gram matrices and atan2."""


@pytest.mark.parametrize("name", REFERENCES)
def test_the_mean_over_prompts_is_that_of_a_dense_reference(name: str) -> None:
    """To 1e-9: an arc cosine, and the squares of small singular values, have no more digits."""
    least = 3 if name.startswith("curvature") else 2
    each = [REFERENCES[name](prompt) for prompt in texts() if len(prompt) >= least]
    found = take(name, *texts())
    assert found.value == pytest.approx(np.mean(each), rel=1e-9)
    assert found.stderr == pytest.approx(np.std(each, ddof=1) / math.sqrt(len(each)), rel=1e-9)
    assert found.n == len(each)
    assert found.note == ("1 of 8 prompts left out: fewer than 3 rows" if least == 3 else "")


@pytest.mark.parametrize("width", [5, 12])
def test_dataset_entropy_of_the_studys_code_is_that_of_means_of_unit_rows(width: int) -> None:
    """Eight prompts: more than five dimensions, and fewer than twelve, where another product is clipped."""
    means = np.array([unit(prompt).mean(axis=0) for prompt in texts(width)])
    found = take("dataset_entropy_skean", *texts(width))
    assert found.value == pytest.approx(clipped(means), rel=1e-12)
    assert (found.stderr, found.n, found.note) == (None, 8, "")


def test_dataset_entropy_is_the_log_of_a_rank_of_means() -> None:
    prompts = texts()
    layout = Layout.of([len(p) for p in prompts], [(0,)] * 8, [0] * 8)
    view = SiteStates(torch.cat(prompts), layout, False).read(READOUTS["mean/uncentred"])
    means = np.array([prompt.numpy().mean(axis=0) for prompt in prompts])
    expected = entropy(np.linalg.svd(means, compute_uv=False) ** 2)
    assert MEASURES["dataset_entropy"].take(view).value == pytest.approx(expected, rel=1e-9)
    rank = MEASURES["covariance_effective_rank"].take(view).value
    assert math.log(rank) == pytest.approx(expected, rel=1e-9)


def test_planted_entropies() -> None:
    orthonormal, equal = torch.eye(6, 9, dtype=torch.float64), torch.ones(6, 9, dtype=torch.float64)
    assert take("prompt_entropy", orthonormal).value == pytest.approx(math.log(6), rel=1e-12)
    assert take("prompt_entropy_normalised", orthonormal).value == pytest.approx(1, rel=1e-12)
    assert take("prompt_entropy", equal).value == pytest.approx(0, abs=1e-12)
    assert take("prompt_entropy", orthonormal, equal).value == pytest.approx(math.log(6) / 2, rel=1e-12)
    # more rows than dimensions: each direction twice
    assert take("prompt_entropy_normalised", torch.eye(4).repeat(2, 1)).value == pytest.approx(1, rel=1e-6)
    # one position of norm r beside 29 orthogonal ones of norm 1: p = r^2 / (r^2 + 29)
    massive = torch.eye(30, dtype=torch.float64)
    massive[0] *= 100
    share = 1e4 / (1e4 + 29)
    expected = -share * math.log(share) - (1 - share) * math.log((1 - share) / 29)
    assert take("prompt_entropy", massive).value == pytest.approx(expected, rel=1e-12)
    # the study's code centres before it takes norms away: a massive row moves the mean, and all others lie one way
    assert take("prompt_entropy_skean", massive / massive.norm(dim=1, keepdim=True)).value > 0.99 * math.log(30)
    assert take("prompt_entropy_skean", massive).value < 0.25 * math.log(30)


def test_planted_curvatures() -> None:
    line = torch.arange(9.0)[:, None] * normal(5) + normal(5)
    assert take("curvature", line).value == pytest.approx(0, abs=1e-7)
    assert take("curvature", line[torch.tensor([0, 1, 0, 1, 0])]).value == pytest.approx(math.pi, rel=1e-9)
    circle = 2 * math.pi / 12 * torch.arange(25, dtype=torch.float64)
    turning = torch.stack([circle.cos(), circle.sin()], dim=1)
    assert take("curvature", turning).value == pytest.approx(2 * math.pi / 12, rel=1e-12)
    # the study's code folds obtuse turns: there and back is straight
    assert take("curvature_skean", torch.tensor([[0.0, 1], [0, -1], [0, 1]])).value == pytest.approx(0, abs=1e-9)
    # independent states: steps share one of two states each, with the other sign
    assert take("curvature", normal(400, 2000)).value == pytest.approx(2 * math.pi / 3, abs=0.01)


def test_a_turn_without_a_step_is_left_out_and_said() -> None:
    corner = torch.tensor([[0.0, 0], [1, 0], [1, 0], [1, 1], [0, 1], [0, 0]])
    found = take("curvature", corner, corner[:3])
    assert found.value == pytest.approx(math.pi / 2)
    assert found.note == (
        "1 of 2 prompts left out: no three states in a row are different; "
        "3 of 5 turns left out: a state equals the one before"
    )
    assert take("curvature_skean", corner).value < math.pi / 2  # there it counts as 0


@pytest.mark.parametrize("name", OF_PROMPTS)
@pytest.mark.parametrize("prompts", [[torch.ones(1, 3)] * 4, [torch.zeros(5, 3)] * 4], ids=["one row", "zero"])
def test_no_prompt_with_a_number_is_a_reason(name: str, prompts: list[torch.Tensor]) -> None:
    with pytest.raises(
        NoValueError, match=r"no prompt has \d rows or more|prompts none has a value|two prompts with a mean"
    ):
        take(name, *prompts)


def test_states_of_one_dimension_have_no_entropy_to_be_a_share_of() -> None:
    with pytest.raises(NoValueError, match="of one dimension"):
        take("prompt_entropy_normalised", torch.ones(3, 1))


@pytest.mark.parametrize("name", OF_PROMPTS)
@given(seed=st.integers(0, 10**6), width=st.integers(2, 12), scale=st.floats(1e-9, 1e9))
def test_invariances_hold_prompt_by_prompt(name: str, seed: int, width: int, scale: float) -> None:
    """Each prompt has a rotation, an order and a vector added of its own where one does not matter to its number."""
    prompts = [normal(2 + (seed + 5 * k) % 9, width, seed=seed + k) for k in range(4)]
    try:
        base = take(name, *prompts).value
    except NoValueError:
        return
    turn = [torch.linalg.qr(normal(width, width, seed=seed + 9 + k)).Q for k in range(4)]
    changed = {
        "scale": [p * scale for p in prompts],
        "rotation": [p @ q for p, q in zip(prompts, turn, strict=True)],
        "order": [p.flip(0) for p in prompts],
        "centring": [p + normal(width, seed=seed + k) for k, p in enumerate(prompts)],
    }
    for invariance in MEASURES[name].invariances:
        assert take(name, *changed[invariance]).value == pytest.approx(base, rel=1e-6, abs=1e-9), invariance
    shuffled = take(name, *prompts[::-1]).value
    assert shuffled == pytest.approx(base, rel=1e-9)


def test_a_readout_gives_each_example_its_own_rows() -> None:
    """Answers alone, or all but sinks; one row an example is no prompt."""
    prompts = [normal(8, 6, seed=k) for k in range(5)]
    layout = Layout.of([8] * 5, [(4, 5, 6)] * 5, [3] * 5)
    site = SiteStates(torch.cat(prompts), layout, False)
    measure = MEASURES["prompt_entropy"]
    of_answers = measure.take(site.read(READOUTS["answer/uncentred"])).value
    assert of_answers == pytest.approx(take("prompt_entropy", *[p[4:7] for p in prompts]).value, rel=1e-12)
    spared = measure.take(site.read(READOUTS["all-but-sinks/uncentred"])).value
    assert spared == pytest.approx(take("prompt_entropy", *[p[1:] for p in prompts]).value, rel=1e-12)
    with pytest.raises(NoValueError, match="no prompt has 2 rows or more: take positions that give a prompt several"):
        measure.take(site.read(READOUTS["mean/uncentred"]))


def test_many_prompts_go_in_bounded_batches() -> None:
    prompts = Prompts(torch.zeros(4 * CHUNK // 512, 512), torch.full((CHUNK // 1024,), 8), torch.zeros(CHUNK // 128))
    sizes = [batch.rows.numel() for batch in prompts.batches(2)]
    assert max(sizes) <= CHUNK
    assert sum(sizes) == 4 * CHUNK


@pytest.mark.parametrize("name", OF_PROMPTS)
def test_float32_states_are_right_or_withheld(name: str) -> None:
    """States that vary by 1 around 10^k: float64's number to one per cent, or what rounding may do of it."""
    outcomes = []
    for size in range(9):
        prompts = [normal(20, 16, seed=k) + 10.0**size for k in range(6)]
        site = SiteStates(torch.cat(prompts).float(), Layout.of([20] * 6, [(0,)] * 6, [0] * 6), False)
        try:
            found = MEASURES[name].take(site.read(READOUTS["all/uncentred"])).value
        except NoValueError as error:
            outcomes.append(error.no_value.status)
        else:
            assert found == pytest.approx(take(name, *prompts).value, rel=0.01, abs=1e-8)
            outcomes.append("ok")
    assert outcomes[:4] == ["ok"] * 4
    assert set(outcomes[:-1]) <= {"ok", "imprecise"}
    # beyond the digits of float32 states are equal to their mean, which a raw entropy rightly finds to be one direction
    assert outcomes[-1] == ("ok" if name in {"prompt_entropy", "prompt_entropy_normalised"} else "undefined")
