"""Where pythiageo's own files and run folders lie, and whether a place that a person named can be written to."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from pythiageo.errors import UserError

OUTPUTS = Path("outputs")
"""Where runs are, seen from where the command is typed."""
_PACKAGE = Path(__file__).resolve().parent


def packaged_folder(name: str) -> Path:
    """Return the folder ``tasks`` or ``configs`` that came with this installation: in the checkout, or the wheel."""
    installed = _PACKAGE / "_data" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


def run_path(out: Path | None, name: str) -> Path:
    """Return the folder of a run: ``out``, or ``outputs/NAME`` here."""
    return out if out is not None else OUTPUTS / name


def find_run(path: Path) -> Path:
    """Return the folder of a run that is named by its path, or by its bare name where it lies in ``outputs``."""
    path = Path(path)
    if len(path.parts) != 1 or path.exists():
        return path
    named = OUTPUTS / path.name
    return named if named.is_dir() else path


def check_folder(path: Path) -> None:
    """Look whether files can be put into the folder ``path``, which is there or can be made; nothing is made.

    Raises:
        UserError: a file is in its way, it may not be written to, or no file may have such a name.
    """
    path = Path(path)
    for place in (path, *path.absolute().parents):
        found = _look(place, path)
        if found is None:
            continue
        if not stat.S_ISDIR(found.st_mode):
            raise UserError(f"{_cannot(path)}: {'it' if place == path else place} is there and is no folder")
        if not os.access(place, os.W_OK | os.X_OK):
            raise UserError(f"{_cannot(path)}: the folder {place} may not be written to")
        return


def check_file(path: Path) -> None:
    """Look whether a file can be put at ``path``, its folders made where they are not there; nothing is made.

    Raises:
        UserError: as ``check_folder``; or a folder is there.
    """
    path = Path(path)
    found = _look(path, path)
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise UserError(f"{_cannot(path)}: it is a folder, and a file is to be written")
    check_folder(path.parent)


def make_folder(path: Path) -> Path:
    """Make a folder, and those above it, unless it is there; return it.

    Raises:
        UserError: as ``check_folder``; whatever else the system says.
    """
    check_folder(path)
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"{_cannot(path)}: {error.strerror or error}") from None
    return path


def _look(place: Path, wanted: Path) -> os.stat_result | None:
    """Return what lies at ``place``, links followed; ``None``: nothing, or what is above it is no folder."""
    try:
        return os.stat(place)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:  # too long a name, a link to itself, a folder that may not be looked into
        raise UserError(f"{_cannot(wanted)}: {error.strerror or error}") from None
    except ValueError as error:  # a NUL in the name
        raise UserError(f"{str(wanted)!r} cannot be written: {error}") from None


def _cannot(path: Path) -> str:
    return f"{path} cannot be written"
