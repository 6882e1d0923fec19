"""Modules that add something to pythiageo: those of a folder inside the package, and those of installed packages.

An installed package names them as entry points of the groups below: CONTRIBUTING.md has an example of each.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from pythiageo.errors import UserError, quote_error

MEASURES, SOURCES = "pythiageo.measures", "pythiageo.sources"
TASKS, IMPORTERS, SERIES = "pythiageo.tasks", "pythiageo.importers", "pythiageo.series"


def providers() -> dict[str, str]:
    """Return the versions of the installed packages that add something, by name."""
    points = (point for group in (MEASURES, SOURCES, TASKS, IMPORTERS, SERIES) for point in _points(group))
    return dict(sorted((point.dist.name, point.dist.version) for point in points if point.dist is not None))


def named_modules(group: str) -> list[str]:
    """Return the modules that installed packages name in a group of entry points, in the order of the names there."""
    return [point.value for point in _points(group)]


def load_parts(package: ModuleType, group: str, name: str) -> Iterator[Any]:
    """Yield what is called ``name`` in the modules that a group names, then in those of a package that have it.

    Raises:
        UserError: an installed package names a module that cannot be imported, or that has nothing of this name.
    """
    for point in _points(group):
        try:
            part = getattr(importlib.import_module(point.value), name)
        except Exception as error:
            raise _broken(point, f"its module {point.value} gives no {name}: {quote_error(error)}") from error
        yield part
    for inside in sorted(module.name for module in pkgutil.iter_modules(package.__path__)):
        if (found := getattr(importlib.import_module(f"{package.__name__}.{inside}"), name, None)) is not None:
            yield found


def named_folders(group: str) -> Iterator[Path]:
    """Yield the folders of the packages that a group names.

    Raises:
        UserError: an installed package names a folder that is not there.
    """
    for point in _points(group):
        try:
            spec = find_spec(point.value)
        except ImportError:
            spec = None
        if spec is None or not spec.submodule_search_locations:
            raise _broken(point, f"there is no package {point.value}, which is a folder that can be imported")
        yield from map(Path, spec.submodule_search_locations)


def _points(group: str) -> list[EntryPoint]:
    return sorted(set(entry_points(group=group)), key=lambda point: (point.name, point.value))


def _broken(point: EntryPoint, why: str) -> UserError:
    package = point.dist.name if point.dist is not None else "a package"
    return UserError(f"{package}, which is installed here, names {point.name!r} in {point.group}, and {why}")
