"""The config files that came with pythiageo: run files of ``train`` and ``analyze``, maps of ``import``."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from pythiageo.errors import UserError, nearest
from pythiageo.locations import packaged_folder

_MAPS = "import/"
_END = re.compile(r"(?<=\.)\s|:\s+(?=pythiageo\b)")
"""Where the sentence of a file's first comment ends: what follows is more of it, or a command line."""


@dataclass(frozen=True)
class ShippedConfig:
    """A config by its name (``demo/tasks.toml``), what it is in a sentence, and the ``command`` that takes it.

    ``{}`` in ``command`` stands for the file.
    """

    name: str
    what: str
    command: str


def shipped_configs() -> list[ShippedConfig]:
    """Return every config file that came with this installation, by name."""
    folder = packaged_folder("configs")
    files = sorted(path for ending in ("toml", "sh") for path in folder.rglob(f"*.{ending}"))
    return [_describe(path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8")) for path in files]


def read_shipped(name: str) -> tuple[ShippedConfig, str]:
    """Return a config by its name, with or without ``.toml``, and its text.

    Raises:
        UserError: there is none of that name.
    """
    known = {config.name: config for config in shipped_configs()}
    found = known.get(name) or known.get(f"{name}.toml")
    if found is None:
        raise UserError(f"no config {name!r}{nearest(name, known)}; pythiageo configs list lists them")
    return found, (Path(packaged_folder("configs")) / found.name).read_text(encoding="utf-8")


def _describe(name: str, text: str) -> ShippedConfig:
    lines = [line for line in text.splitlines() if not line.startswith("#!")]
    comment: list[str] = []
    for line in lines:
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    what = _END.split(" ".join(comment), maxsplit=1)[0].rstrip(".:")
    if name.endswith(".sh"):
        return ShippedConfig(name, what, "sbatch {}")
    if name.startswith(_MAPS):
        return ShippedConfig(name, what, "import TABLE --map {} --out outputs/NAME")
    return ShippedConfig(name, what, f"{tomllib.loads(text).get('kind', 'train')} {{}}")
