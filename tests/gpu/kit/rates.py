"""What the card does in a second, and what spectra of states of Pythia's widths take on it and on one core."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from pythiageo.compute.device import wait_for_device
from pythiageo.estimate.card import COPY
from pythiageo.geometry.spectrum import Spectra
from tests.gpu.kit.options import parse
from tests.gpu.kit.results import Results

SHAPES = ((200, 768), (1600, 768), (1600, 1024), (2048, 2048), (2300, 2560), (2400, 5120))
"""Rows and width of states."""
TINY = ((40, 16),)
MASSIVE = 300.0
"""Norm of the first row over the others'."""


def time_call(call: Callable[[], object], device: str, times: int = 5) -> float:
    """Return the median seconds of a call, after two that are not counted."""
    found = []
    for number in range(times + 2):
        wait_for_device(device)
        begun = time.perf_counter()
        call()
        wait_for_device(device)
        if number > 1:
            found.append(time.perf_counter() - begun)
    return statistics.median(found)


def make_states(rows: int, width: int, massive: bool) -> torch.Tensor:
    """Return states with a spectrum that falls as a power, about a mean, the first row massive or not."""
    generator = torch.Generator().manual_seed(rows + width)
    turn = torch.randn(width, width, generator=generator) / width**0.5
    states = torch.randn(rows, width, generator=generator) * torch.arange(1, width + 1) ** -0.7 @ turn + 0.1
    if massive:
        states[: max(1, rows // 20)] += MASSIVE * states.norm(dim=1).median() * turn[0] / turn[0].norm()
    return states


def add_products(results: Results, device: str, side: int) -> None:
    """Write TFLOP/s of square products, and GB/s of copies."""
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        matrix = torch.randn(side, side, device=device).to(dtype)
        seconds = time_call(lambda matrix=matrix: matrix @ matrix, device)  # type: ignore[misc]
        results.add("rates", product=str(dtype).removeprefix("torch."), side=side, tflops=2e-12 * side**3 / seconds)
    here = torch.empty(side, side)
    there = torch.empty(side, side, device=device)
    ways = {"to the card": (there, here), "from the card": (here, there), "on the card": (there, there.clone())}
    if device != "cpu":
        ways[COPY] = (there, here.pin_memory())
    for way, (target, source) in ways.items():
        seconds = time_call(lambda target=target, source=source: target.copy_(source), device)  # type: ignore[misc]
        results.add("rates", copy=way, gb_per_second=1e-9 * here.nbytes / seconds)


def add_spectra(results: Results, device: str, shapes: tuple[tuple[int, int], ...]) -> None:
    """Write seconds of both spectra where the states are and on one core, and how far they differ."""
    for rows, width in shapes:
        for massive in (False, True):
            here = make_states(rows, width, massive)
            there = here.to(device)

            def both(states: torch.Tensor) -> list[torch.Tensor]:
                spectra = Spectra(states)
                return [spectra.of(True).sigma, spectra.of(False).sigma]

            torch.set_num_threads(1)
            begun = time.perf_counter()
            expected = both(here)
            core = time.perf_counter() - begun
            apart = max(
                float(((one - other).abs() / other[0]).max()) for one, other in zip(both(there), expected, strict=True)
            )
            gram = (there.double().T @ there.double())[: min(rows, width), : min(rows, width)]
            results.add(
                "rates", spectra=[rows, width], massive=massive, core=core, apart=apart,
                device=time_call(lambda there=there: both(there), device, 3),  # type: ignore[misc]
                method=Spectra(there).of(True).method,
                eigvalsh=time_call(lambda gram=gram: torch.linalg.eigvalsh(gram), device, 3),  # type: ignore[misc]
            )  # fmt: skip


def main() -> None:
    """Measure all of it."""
    options = parse(__doc__)
    results = Results(options.out)
    add_products(results, options.device, 64 if options.rehearse else 8192)
    add_spectra(results, options.device, TINY if options.rehearse else SHAPES)


if __name__ == "__main__":
    main()
