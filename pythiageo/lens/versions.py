"""Whether the libraries that read states are of versions that this package is known to work with."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from pythiageo.errors import UserError

READERS = ("transformers", "transformer-lens")


def check_versions(required: Iterable[str] | None = None) -> None:
    """Check what reads states against the ranges in this package's own metadata, or against ``required``.

    Raises:
        UserError: a version outside its range: what it would read may be another model's states, or another place's.
    """
    try:
        required = requires("pythiageo") if required is None else required
    except PackageNotFoundError:  # run from a folder that was never installed
        return
    for requirement in map(Requirement, required or ()):
        if requirement.name not in READERS or requirement.marker is not None:
            continue
        found = version(requirement.name)
        if not requirement.specifier.contains(found, prereleases=True):
            raise UserError(
                f"{requirement.name} {found} is installed, and pythiageo is known to work with "
                f"{requirement.specifier}: pip install '{requirement}'"
            )
