"""Both spectra of one matrix against two float64 Gram matrices and ``eigvalsh``, with massive activations too."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

import pytest
import torch
from activations import plant_states

from pythiageo.compute.threads import one_thread
from pythiageo.geometry.spectrum import Spectra

PAIRS = int(os.environ.get("PYTHIAGEO_BENCH_PAIRS", "9"))
SHAPES = [
    (200, 768), (600, 2560), (1200, 768), (2000, 1024), (2048, 2560), (2328, 2048), (2300, 2560), (2400, 5120),
]  # fmt: skip


def take_plainly(states: torch.Tensor) -> None:
    matrix = states.double()
    for each in (matrix, matrix - matrix.mean(dim=0)):
        torch.linalg.eigvalsh(each.T @ each if each.shape[0] > each.shape[1] else each @ each.T)


def take(states: torch.Tensor) -> list[str]:
    spectra = Spectra(states)
    return [spectra.of(centred).method for centred in (True, False)]


def seconds(work: Callable[[], object], times: int) -> float:
    begun = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - begun) / times


@pytest.mark.bench
@pytest.mark.parametrize("massive", [0, 1000])
@pytest.mark.parametrize("shape", SHAPES)
def test_spectra_against_two_gram_matrices(shape: tuple[int, int], massive: float) -> None:
    states = plant_states(*shape, massive=massive)
    times = max(1, 10**7 // (shape[0] * shape[1] * min(shape) // 100))
    with one_thread():
        methods, _ = take(states), take_plainly(states)
        pairs = [
            (seconds(lambda: take(states), times), seconds(lambda: take_plainly(states), times)) for _ in range(PAIRS)
        ]
    ratios = sorted(ours / plain for ours, plain in pairs)
    plain = statistics.median(plain for _, plain in pairs)
    print(
        f"\n{shape[0]} x {shape[1]}, massive {massive:g}, {methods}: {statistics.median(ratios):.2f} "
        f"[{ratios[0]:.2f}, {ratios[-1]:.2f}], plain {plain:.3f} s",
        end="",
    )
