"""One writer a run folder: by the system's lock, or by a file with host and pid where locks fail or do nothing."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psutil  # type: ignore[import-untyped]
from filelock import FileLock, SoftFileLock, Timeout

from pythiageo.errors import UserError

_LOCK, _OWNER = ".lock", ".owner"
LOCK_FILES = (_LOCK, _OWNER)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
"""What a disk without locks answers, some network disks among them."""
_LOG = logging.getLogger("pythiageo")
_TOLD: set[Path] = set()
"""Folders of which it was said: a training that is followed opens its own again and again."""
_TICKS = 2.0
"""Seconds that the beginning of a process may differ by when it is asked for again: the clock may have been set."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a run folder alone, for as long as the context is open.

    The system's lock ends with its process. Where the disk has none, or has one that keeps nobody out, this is said,
    and a file ``.owner`` that only one can make takes its place; one that was left by a process of this machine which
    has ended is taken over.

    Raises:
        UserError: another process has it.
    """
    lock = FileLock(folder / _LOCK)
    owner = folder / _OWNER
    try:
        missing = _lock(lock, folder)
        if missing:
            if folder not in _TOLD:
                _TOLD.add(folder)
                _LOG.warning(
                    f"{folder}: {missing}; a file {_OWNER} with this host and process keeps other writers out instead"
                )
            _own(owner, folder)
        elif owner.exists() and (other := _running(owner)):
            raise UserError(f"{folder}: another process is working on this run: {other}")
        try:
            yield
        finally:
            if missing:
                owner.unlink(missing_ok=True)
    finally:
        if lock.is_locked:
            lock.release()


def is_held(folder: Path) -> bool:
    """Return whether a process works on a run folder now; nothing is written there, and no lock is taken for long."""
    if (folder / _OWNER).is_file() and _running(folder / _OWNER):
        return True
    try:
        import fcntl  # noqa: PLC0415 - there is none on Windows

        handle = os.open(folder / _LOCK, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except (ImportError, OSError):
        return True  # not known
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _lock(lock: FileLock, folder: Path) -> str | None:
    """Take the system's lock; return why it is worth nothing here, ``None`` where it is.

    Raises:
        UserError: another process has it.
    """
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{folder}: another process is working on this run") from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        return f"this disk has no locks ({getattr(error, 'strerror', None) or error})"
    if isinstance(lock, SoftFileLock):  # what the library falls back to knows nothing of a process that was killed
        lock.release()
        return "this disk has no locks"
    return None if _keeps_out(folder / _LOCK) else "locks do nothing on this disk"


def _keeps_out(file: Path) -> bool:
    """Return whether the lock that is held on ``file`` keeps out who opens the file anew, in this process too."""
    try:
        import fcntl  # noqa: PLC0415 - there is none on Windows, whose locks hold
    except ImportError:
        return True
    handle = os.open(file, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _own(owner: Path, folder: Path) -> None:
    """Make the file that says whose the folder is.

    Raises:
        UserError: there is one of a process that runs, or of another machine, of which that cannot be told.
    """
    mine = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())})
    while True:
        with suppress(FileExistsError):
            handle = os.open(owner, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(mine)
            return
        if other := _running(owner):
            raise UserError(f"{folder}: another process is working on this run: {other}")
        aside = owner.with_name(f"{_OWNER}.{uuid4().hex}.tmp")
        with suppress(FileNotFoundError):  # somebody else took it over
            os.rename(owner, aside)
            live = _running(aside)
            if live:  # it was made anew in between
                with suppress(FileExistsError):
                    os.link(aside, owner)
            aside.unlink()


def _running(owner: Path) -> str | None:
    """Return who has the folder, as people read it; ``None`` if that process has ended, or the file has."""
    try:
        told = json.loads(owner.read_text(encoding="utf-8"))
        host, pid, started = str(told["host"]), int(told["pid"]), told["started"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return f"remove {owner.name} in it if that is not so"  # cut by a power loss, or being written
    if host != socket.gethostname():
        return f"process {pid} on {host}; remove {owner.name} in it if that process has ended"
    begun = _started(pid)
    same = begun is not None and isinstance(started, float) and abs(begun - started) < _TICKS
    return f"process {pid} on this machine" if same else None


def _started(pid: int) -> float | None:
    """Return when a process began, so that another one of the same number is not taken for it."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None
