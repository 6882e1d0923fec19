"""What names the machine in a text, taken out by its kind: folders, addresses, hosts, what is signed or secret.

A sentence may be cut short by it; what is left names nothing. Public addresses stay, without what is signed.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pythiageo.observations.manifest import Manifest

ADDRESS, HOME, SECRET = "(address)", "~", "(secret)"
_PUBLIC = ("huggingface.co", "hf.co", "github.com", "arxiv.org", "doi.org", "pytorch.org", "python.org")
_HOMES = ("home", "users")
_KEPT = "\0"
"""Stands for an address that stays while the rest of its text is looked at."""

_START = r"(?:[\w.-]+:(?=/)|~[\w.-]*(?=[/\\])|\.{1,2}(?=[/\\])|[A-Za-z]:(?=[/\\]))?[/\\]"
"""How a path from a root, a home, a drive, another machine or the folder above begins."""
_QUOTED = re.compile(rf"""(?P<quote>['"`])(?P<path>{_START}(?:(?!(?P=quote))[^\n\0])*)(?P=quote)""")
_BARE = re.compile(
    rf"(?<![\w/\\.~-])(?P<path>{_START}(?=[^\s/]|[/\\]\S)[^\n\0]*[/\\]|{_START}(?=[^\s/\\]))(?P<next>[^\s/\\\0]*)"
)
_URL = re.compile(r"""(?<![\w.+-])[A-Za-z][\w.+-]*://(?:[^\s'"`<>\0]|(?<=\w)'(?=\w))+""")
_QUOTED_URL = re.compile(r"""(?P<quote>['"`])(?P<url>[A-Za-z][\w.+-]*://(?:(?!(?P=quote))[^\n\0])*)(?P=quote)""")
_SIGNED = re.compile(r"""[?&][\w.%-]+=[^\s'"`)\0]*""")
_SECRETS = re.compile(
    r"\bhf_\w{6,}|\b[Bb]earer\s+\S+|(?i:\b(?:x-amz-[\w-]+|signature|policy|key-pair-id|token|password)=\S+)"
)
_MAIL = re.compile(r"""(?<![^\s'"`(<\0])[^\s'"`(<\0@]+@[\w-]+(?:\.[\w-]+)+""")
_NUMBERS = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?(?![\w.]*\w)")
_COLONS = re.compile(r"\[?(?<![\w:.])(?=[0-9A-Fa-f]*:)[0-9A-Fa-f:]+:[0-9A-Fa-f:.]*(?:%\w+)?(?![\w:])\]?(?::\d+)?")
_SAID = re.compile(
    r"""(?i)\b(host(?:name)?|server|node|machine|domain)(\s*[=:]\s*|\s+)(?P<quote>['"]?)(?P<name>[\w.-]+)(?P=quote)"""
)
_PORT = re.compile(r"(?<![\w.-])(?P<name>[A-Za-z0-9][\w.-]*):\d{2,5}(?![\w.])")
_ENDINGS = (
    "local|internal|lan|corp|intra|intranet|home|localdomain|svc|cluster|private|arpa|test|example|invalid|com|net|org|"
    "edu|gov|mil|io|ai|dev|cloud|app|info|int|de|fr|uk|jp|cn|ch|nl|eu|us|ca|au|se|fi|dk|es|kr|br|at"
)
_DOTTED = re.compile(rf"(?i)(?<![\w.-])(?P<name>(?:[a-z0-9][\w-]*\.)+(?:{_ENDINGS}))(?::\d+)?(?![\w-]|\.\w)")
_FILES = (".py", ".rs", ".cc", ".cpp", ".cu", ".h", ".json", ".jsonl", ".toml", ".txt", ".safetensors", ".bin")


def clean(text: str, known: Iterable[str] = ()) -> str:
    """Return ``text`` without what names a machine; of a path its last part is kept.

    ``known``: folders and files, whatever they are called, of which it is known that they are this machine's.
    """
    for place in sorted(known, key=len, reverse=True):
        for form in {place, place.replace("\\", "\\\\")}:
            text = text.replace(form, f"/{re.sub(r'[^0-9A-Za-z_.+-]', '_', _last(place))}")
    kept: list[str] = []
    text = text.replace(_KEPT, "")

    def address(url: str) -> str:
        short = _shown(url)
        if short is None:
            return ADDRESS
        kept.append(short)
        return _KEPT

    text = _QUOTED_URL.sub(lambda found: f"{found['quote']}{address(found['url'])}{found['quote']}", text)
    text = _URL.sub(lambda found: _with_end(found[0], address), text)
    text = _SECRETS.sub(SECRET, text)
    text = _SIGNED.sub("", text)
    text = _QUOTED.sub(lambda found: f"{found['quote']}{_last(found['path'])}{found['quote']}", text)
    text = _BARE.sub(lambda found: HOME if _is_homes(found["path"]) else found["next"], text)
    text = _MAIL.sub(ADDRESS, text)
    text = _NUMBERS.sub(
        lambda found: ADDRESS if _is_number(found[0].rpartition(":")[0] or found[0]) else found[0], text
    )
    text = _COLONS.sub(lambda found: ADDRESS if _is_colons(found[0]) else found[0], text)
    text = _SAID.sub(lambda f: f"{f[1]}{f[2]}{ADDRESS}" if f["quote"] or _is_host(f["name"]) else f[0], text)
    text = _PORT.sub(lambda found: ADDRESS if _has_port(found["name"]) else found[0], text)
    text = _DOTTED.sub(lambda found: found[0] if _is_public(found["name"]) else ADDRESS, text)
    for host in _own_hosts():
        text = re.sub(rf"(?<![\w-]){re.escape(host)}(?![\w-])", ADDRESS, text)
    pieces = iter(kept)
    return re.sub(_KEPT, lambda _: next(pieces), text)


def clean_values(value: Any, known: Iterable[str] = ()) -> Any:
    """Return a part of a manifest, cleaned; of a text that is a path as a whole the last part is kept."""
    if isinstance(value, dict):
        return {key: clean_values(one, known) for key, one in value.items()}
    if isinstance(value, list):
        return [clean_values(one, known) for one in value]
    if isinstance(value, str):
        return _last(value) if re.match(rf"{_START}(?!\s)", value) and "\n" not in value else clean(value, known)
    return value


def find_places(manifest: Manifest, *paths: Path) -> set[str]:
    """Return the places of a machine that a manifest names, its command among them, and ``paths``, spelled out."""
    told = [
        value
        for value in _texts(manifest.as_json())
        if re.match(_START, value) and len(value) > 3 and "\n" not in value
    ]
    for one in [manifest.provenance, *manifest.earlier_provenance]:
        words = [word for word in one.command or [] if isinstance(word, str)]
        values = [*words, *(word.partition("=")[2] for word in words)]
        told += [word for word in values if re.match(_START, word) and len(word) > 3]
    own = [str(path.resolve()) for path in paths] + [str(Path.cwd()), str(Path.home())]
    return {place.rstrip("/\\") for place in [*told, *own] if len(Path(place).parts) > 1}


def own_names() -> list[str]:
    """Return this machine's names that are unlike any other word, and the host of a Hub of one's own."""
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", "")).hostname
    hosts = [name for name in _own_hosts() if _is_host(name) and len(name) > 4]
    return hosts + ([endpoint] if endpoint and not _is_public(endpoint) and _is_host(endpoint) else [])


def _own_hosts() -> list[str]:
    name = socket.gethostname()
    return [name] if len(name) > 2 and name != "localhost" else []


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)
    elif isinstance(value, str):
        yield value


def _last(path: str) -> str:
    """Return the last part of a path of whatever system; of somebody's home none."""
    parts = [part for part in re.split(r"[/\\]+", path) if part]
    if not parts or (parts[0].startswith("~") and len(parts) == 1):
        return HOME
    return HOME if _is_homes("/".join(parts[:-1])) else parts[-1]


def _is_homes(path: str) -> bool:
    """Return whether a folder is the one that the homes lie in, so that what comes next is a person's name."""
    parts = [part for part in re.split(r"[/\\]+", path) if part]
    return bool(parts) and parts[-1].lower() in _HOMES and len(parts) <= 2


def _shown(url: str) -> str | None:
    """Return an address without what is signed or secret in it, ``None`` if it is not public."""
    try:
        parts = urlsplit(url)
        public = parts.scheme in ("http", "https") and parts.port is None and _is_public(parts.hostname or "")
    except ValueError:
        return None
    return f"{parts.scheme}://{parts.hostname}{parts.path}" if public else None


def _with_end(url: str, address: Any) -> str:
    """Take the punctuation of the sentence off an address."""
    bare = url.rstrip(".,;:!?)]}")
    return f"{address(bare)}{url[len(bare) :]}"


def _is_public(host: str) -> bool:
    return any(host.lower() == name or host.lower().endswith(f".{name}") for name in _PUBLIC)


def _is_number(text: str) -> bool:
    return all(int(part) < 256 for part in text.split("."))


def _is_colons(text: str) -> bool:
    inner = text.partition("]")[0].lstrip("[").partition("%")[0]
    try:
        ipaddress.IPv6Address(inner)
    except ValueError:
        return False
    return inner != "::"


def _is_host(name: str) -> bool:
    """Return whether a word is no plain word or number: it has letters, and digits, hyphens or dots between them."""
    return bool(re.search(r"[A-Za-z]", name) and re.search(r"[0-9]|\w[-.]\w", name)) and not name.endswith(_FILES)


def _has_port(name: str) -> bool:
    return name == "localhost" or (not name.endswith(_FILES) and bool(re.search(r"[A-Za-z]", name)) and _is_host(name))
