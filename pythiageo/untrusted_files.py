"""Files that may be a stranger's: read only if they are plain files of a sane size, and added to through no link.

A name in somebody else's folder may be a FIFO that blocks for ever, a device without an end, a link that leads
elsewhere, or 4 GB that call themselves a config. Every such file is read through here.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import tomllib
from pathlib import Path
from typing import Any, BinaryIO

from pythiageo.errors import UserError

MIB = 2**20
JSON_LIMIT = 16 * MIB
"""Bytes of a JSON file, where its reader does not say otherwise."""
TOML_LIMIT = 4 * MIB
TOKENIZER_LIMIT = 256 * MIB
DEPTH = 64
"""How deep lists and tables may lie in one another."""
_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device", stat.S_IFLNK: "a link",
}  # fmt: skip
_WRONG_NAMES = {errno.ENAMETOOLONG: "has a name longer than the file system allows", errno.ELOOP: "is a link to itself"}
_OPTIONS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)


class BadFileError(ValueError):
    """A file is not what its reader takes. The text goes on from the file's name: "is a FIFO, not a plain file"."""


def open_plain(path: Path, limit: int | None = None) -> BinaryIO:
    """Open a plain file for reading, links followed; nothing else is opened, so that nothing blocks.

    Raises:
        FileNotFoundError: there is none.
        BadFileError: a folder, FIFO, socket or device, more than ``limit`` bytes, or a file that cannot be opened.
    """
    try:
        _check(os.stat(path), limit)
        handle = os.open(path, os.O_RDONLY | _OPTIONS)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BadFileError(_WRONG_NAMES.get(error.errno or 0, f"cannot be read: {error.strerror or error}")) from None
    except ValueError as error:
        if isinstance(error, BadFileError):
            raise
        raise BadFileError("is no file's name") from None  # it holds a NUL
    try:
        _check(os.fstat(handle), limit)
    except BadFileError:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def check_plain(path: Path, limit: int | None = None) -> None:
    """Raise as ``open_plain``: for a file that a library opens by its name."""
    open_plain(path, limit).close()


def is_plain(path: Path) -> bool:
    """Return whether there is such a file, links followed; ``False`` for a name that no file can have."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def read_bytes(path: Path, limit: int) -> bytes:
    """Return a plain file's content. Raises as ``open_plain``."""
    try:
        with open_plain(path, limit) as file:
            content = file.read(limit + 1)  # a file may grow, and /proc tells no sizes
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise BadFileError(f"cannot be read: {error.strerror or error}") from None
    if len(content) > limit:
        raise BadFileError(_too_large(len(content), limit))
    return content


def read_text(path: Path, limit: int) -> str:
    """Return a plain file's text. Raises as ``open_plain``; ``BadFileError`` too where it is not UTF-8."""
    try:
        return read_bytes(path, limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadFileError(f"is not UTF-8 text: {error}") from None


def read_json(path: Path, limit: int = JSON_LIMIT) -> Any:
    """Return what a JSON file holds. Raises as ``read_text`` and ``parse_json``."""
    return parse_json(read_text(path, limit))


def parse_json(text: str) -> Any:
    """Return what a JSON text holds.

    Raises:
        BadFileError: not JSON, deeper than ``DEPTH``, or half a character in it, which no file could be written with.
    """
    try:
        value = json.loads(text)
        _check_depth(value)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise BadFileError(_too_deep()) from None
    except UnicodeEncodeError:
        raise BadFileError("is not readable JSON: a text in it holds half a character (a lone surrogate)") from None
    except BadFileError:
        raise
    except ValueError as error:
        raise BadFileError(f"is not readable JSON: {error}") from None
    return value


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a TOML file holds.

    Raises:
        FileNotFoundError: there is none.
        BadFileError: as ``read_text``; not TOML, or deeper than ``DEPTH``.
    """
    text = read_text(path, TOML_LIMIT)
    try:
        value = tomllib.loads(text)
        _check_depth(value)
    except RecursionError:
        raise BadFileError(_too_deep()) from None
    except BadFileError:
        raise
    except ValueError as error:
        raise BadFileError(f"has a mistake: {error}") from None
    return value


def append_text(path: Path, text: str) -> None:
    """Add ``text`` to the end of a file, made where there is none.

    Raises:
        UserError: a link, or something else than a plain file, lies there.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _OPTIONS | _NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno not in {errno.ELOOP, errno.EISDIR, errno.ENXIO}:
            raise
        raise UserError(f"{path} is not a plain file, so nothing is written to it: remove it") from None
    with os.fdopen(handle, "ab") as file:
        try:
            _check(os.fstat(handle), None)
        except BadFileError as error:
            raise UserError(f"{path} {error}: remove it") from None
        file.write(text.encode("utf-8"))


def check_own(folder: Path, files: set[str], folders: set[str]) -> None:
    """Refuse a folder in which a name that is written to or removed is a link or something special.

    Looked at are ``files``, ``folders`` and everything in these.

    Raises:
        UserError: the first such name.
    """
    waiting = [(folder, True)]
    while waiting:
        here, top = waiting.pop()
        with os.scandir(here) as entries:
            for entry in entries:
                if top and entry.name not in files | folders:
                    continue
                mode = entry.stat(follow_symlinks=False).st_mode
                wrong = not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
                if top and not wrong:
                    wrong = entry.name in (files if stat.S_ISDIR(mode) else folders)
                if wrong:
                    raise UserError(
                        f"{entry.path} is {_KINDS.get(stat.S_IFMT(mode), 'a plain file')}: a run's folder holds plain "
                        f"files and folders of its own, and nothing is written through anything else: remove it, or "
                        f"copy what it leads to"
                    )
                if stat.S_ISDIR(mode):
                    waiting.append((Path(entry.path), False))


def _check(found: os.stat_result, limit: int | None) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise BadFileError(f"is {_KINDS.get(stat.S_IFMT(found.st_mode), 'something special')}, not a plain file")
    if limit is not None and found.st_size > limit:
        raise BadFileError(_too_large(found.st_size, limit))


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH + 1):
        held = [one for one in level if isinstance(one, (dict, list))]
        if not held:
            return
        level = [inner for one in held for inner in (one.values() if isinstance(one, dict) else one)]
    raise BadFileError(_too_deep())


def _too_large(size: int, limit: int) -> str:
    return f"is too large to be what its name says: {size:,} bytes, of at most {limit:,}"


def _too_deep() -> str:
    return f"is not readable JSON or TOML: it nests deeper than {DEPTH}"
