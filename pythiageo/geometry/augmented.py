"""How well states tell prompts apart whose texts were changed at random: functions of augmented views."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from pythiageo.geometry.entropy import effective_number
from pythiageo.geometry.matrix_entropy import entropies_of
from pythiageo.no_value import NoValueError

RIDGE = 1e-4
"""What LiDAR adds to each variance within prompts, as its paper does: a direction that no augmentation moves counts."""


def infonce(
    first: Float[Tensor, "prompt d_model"], second: Float[Tensor, "_ d_model"], temperature: float = 0.1
) -> float:
    """Return log n - mean_i -log softmax_j(<x_i, y_j> / temperature)_i: a lower bound, in nats, of mutual information.

    x and y (prompt) are the states of two augmented views of n prompts. At most log n, where each view finds its other
    one; 0 where all prompts are alike; below 0 where it finds another's. Of rows as they are: the study's are means of
    unit rows. Over log n it is what the code of Skean et al. calls ``mi-lower-bound``. Invariant to one rotation of
    both and to one order of the prompts; not to scale.

    Source: van den Oord, Li, Vinyals 2018; Skean et al., ICML 2025, arXiv 2502.02013.

    Raises:
        ValueError: views of different shapes, fewer than two prompts, or a temperature that is not above 0.
        NoValueError: states that are not finite.

    >>> round(infonce(10 * torch.eye(4), 10 * torch.eye(4)), 3)
    1.386
    """
    first, second = _check_pair(first, second)
    if not temperature > 0:
        raise ValueError(f"expected a temperature above 0, got {temperature}")
    own = torch.arange(len(first), device=first.device)
    loss = torch.nn.functional.cross_entropy(first @ second.T / temperature, own)
    return math.log(len(first)) - float(loss)


def dime(
    first: Float[Tensor, "prompt d_model"],
    second: Float[Tensor, "_ d_model"],
    permutations: int = 10,
    seed: int = 0,
) -> float:
    """Return DiME, in nats: the entropy of the views' joint Gram matrix with shuffled pairs, less that with true ones.

    With K and L the Gram matrices of both views, H(K * P L P^T) - H(K * L), * entry by entry, H the matrix-based
    entropy, the first a mean over random permutations P. 0 where pairs share nothing; larger where prompts that are
    alike in one view are so in the other. Invariant to scale and rotation of each view; to one order of the prompts
    but for the drawing of P. Entropies are of n x n matrices for any number of prompts; the code of Skean et al.
    multiplies d x d ones, whose entries are no pairs, where prompts outnumber dimensions.

    Source: Skean, Hoyos Osorio, Brockmeier, Giraldo, "DiME", 2023, arXiv 2301.08164.

    Raises:
        ValueError: views of different shapes, fewer than two prompts, or no permutation.
        NoValueError: states that are not finite, or zero.

    >>> same = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> 0 < dime(same, same) < 1.387
    True
    """
    first, second = _check_pair(first, second)
    if permutations < 1:
        raise ValueError(f"expected at least one permutation, got {permutations}")
    sizes = [float(view.abs().max()) for view in (first, second)]
    if not min(sizes) > 0:
        raise NoValueError("the states of a view are zero")
    one, other = (view / size @ (view / size).T for view, size in zip((first, second), sizes, strict=True))
    draws = torch.Generator().manual_seed(seed)
    joint, shuffled = float(entropies_of(one * other)), 0.0
    for _ in range(permutations):
        order = torch.randperm(len(first), generator=draws).to(first.device)
        shuffled += float(entropies_of(one * other[order][:, order])) / permutations
    return shuffled - joint


def lidar(views: Float[Tensor, "prompt view d_model"], ridge: float = RIDGE) -> float:
    """Return exp(-sum p log p), p the eigenvalues of W^-1/2 B W^-1/2 over their sum: LDA's matrix's effective rank.

    B is the covariance of the prompts' means over their views, W that of views around their prompt's mean, plus
    ``ridge`` on its diagonal. Between 1 and the smaller of d_model and one less than the number of prompts: how many
    directions tell prompts apart, those that augmentation moves counting less. The code of Skean et al. reports its
    logarithm. Invariant to rotation of d_model and order of prompts and views; to scale but for the ridge.

    Source: Thilak et al., "LiDAR", ICLR 2024, arXiv 2312.04000, equations 1 to 3.

    Raises:
        ValueError: fewer than two prompts or two views, or a ridge that is not above 0.
        NoValueError: states that are not finite, or prompts whose means are all equal.

    >>> round(lidar(torch.eye(4)[:, None].expand(4, 2, 4)), 3)
    3.0
    """
    if len(views) < 2 or views.shape[1] < 2:
        raise ValueError(f"expected two prompts or more of two views or more, got {tuple(views.shape)}")
    if not ridge > 0:
        raise ValueError(f"expected a ridge above 0, got {ridge}")
    _check_finite(views)
    states = views.double()
    means = states.mean(dim=1)
    between = means - means.mean(dim=0)
    within = (states - means[:, None]).flatten(0, 1)
    diagonal = ridge * torch.eye(states.shape[2], dtype=torch.float64, device=states.device)
    root = torch.linalg.cholesky(within.T @ within / len(within) + diagonal)
    whitened = torch.linalg.solve_triangular(root, between.T, upper=False)
    return effective_number(torch.linalg.svdvals(whitened).square())


def _check_pair(
    first: Tensor, second: Tensor
) -> tuple[Float[Tensor, "prompt d_model"], Float[Tensor, "prompt d_model"]]:
    if first.shape != second.shape or first.ndim != 2 or len(first) < 2:
        raise ValueError(
            f"expected two views (prompt, d_model) of the same two prompts or more, got {tuple(first.shape)} "
            f"and {tuple(second.shape)}"
        )
    _check_finite(first)
    _check_finite(second)
    return first.double(), second.double()


def _check_finite(states: Tensor) -> None:
    if not bool(torch.isfinite(states).all()):
        raise NoValueError("states hold NaN or infinity", "nonfinite")
