"""The study's model sizes (arXiv 2602.15997, Table 2; xlarge: version 4)."""

from __future__ import annotations

from typing import NamedTuple

from pythiageo.errors import UserError, nearest


class Size(NamedTuple):
    """Shape of a model, and the study's training length and peak learning rate for it."""

    layers: int
    d_model: int
    heads: int
    d_ff: int
    steps: int
    peak_lr: float
    published_parameters: float


SIZES: dict[str, Size] = {
    "nano": Size(2, 128, 4, 512, 100_000, 3e-4, 405e3),
    "micro": Size(4, 192, 6, 768, 100_000, 3e-4, 1.8e6),
    "small": Size(6, 320, 8, 1280, 100_000, 3e-4, 7.4e6),
    "medium": Size(8, 512, 8, 2048, 200_000, 1e-4, 25.2e6),
    "large": Size(12, 768, 12, 3072, 200_000, 1e-4, 85e6),
    "xlarge": Size(12, 1024, 16, 4096, 200_000, 1e-4, 151e6),
}
SEEDS = (42, 123, 7)
VERSION_1 = ("nano", "micro", "small", "medium", "large")
"""The sizes of the study's first version, which its figures show."""


def get_size(name: str) -> Size:
    """Return the size called ``name``.

    Raises:
        UserError: there is none; the nearest name is given.
    """
    if name not in SIZES:
        raise UserError(f"no size {name!r}{nearest(name, SIZES)}; there are {', '.join(SIZES)}")
    return SIZES[name]
