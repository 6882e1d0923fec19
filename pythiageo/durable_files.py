"""Writing that lasts: what has a name is whole and on the disk, whenever the process is killed or the power cut.

Links are not followed: what stands at a name is replaced, never written through.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pythiageo.errors import MachineError, machine_trouble

KEPT = "nothing that was finished before is lost, and the run can be resumed"
_TEMPORARY = ".tmp"
_WRITING = ".writing-"
_DENIED = (errno.EACCES, errno.EPERM)


def replace_file(path: Path, content: bytes, kept: str = KEPT) -> None:
    """Put ``content`` at ``path`` so that a reader sees the old file or the new one, whole.

    Raises:
        MachineError: the file could not be written; the sentence ends with ``kept``, what the person still
            has.
    """
    try:
        with new_file(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise machine_error(error, path, kept) from error


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give an empty file to write to; once it is on the disk it replaces what stands at ``path``."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_TEMPORARY)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # The temporary file is private to its owner; a finished one is as readable as any new file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a path to make a folder at; once all of it is on the disk it replaces what stands at ``path``."""
    temporary = path.with_name(f"{_WRITING}{path.name}")
    remove(temporary)
    yield temporary
    for folder, _, names in os.walk(temporary):
        for name in names:
            _sync(Path(folder, name))
        _sync(Path(folder))
    remove(path)
    os.replace(temporary, path)
    _sync(path.parent)


def drop_leftovers(folder: Path) -> None:
    """Remove what writes that were cut off left directly inside ``folder``."""
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if is_leftover(entry):
            remove(entry)


def is_leftover(path: Path) -> bool:
    """Return whether ``path`` is named as what is still being written is."""
    return path.name.startswith(_WRITING) or (path.name.startswith(".") and path.name.endswith(_TEMPORARY))


def remove(path: Path) -> None:
    """Remove a file, a link itself, or a folder with all in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def machine_error(error: OSError, path: Path, kept: str) -> MachineError:
    """Return the sentence for a file that could not be written; it ends with ``kept``, what the person still has."""
    cause = "permission is denied" if error.errno in _DENIED else machine_trouble(error) or str(error)
    return MachineError(f"could not write {path}: {cause}; {kept}.")


def _sync(path: Path) -> None:
    """Put a file, or the names in a folder, on the disk, where the system has a way to say so."""
    folder = path.is_dir()
    if folder and not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:  # some network disks cannot for a folder
        if not folder or error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)
