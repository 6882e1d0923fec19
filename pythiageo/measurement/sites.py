"""Which sites of a model are measured: the default ones, or those that patterns and layers name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Protocol

from pythiageo.errors import UserError, nearest

_BLOCK = re.compile(r"blocks\.(\d+)\.")
_LAYERS = re.compile(r"(\d{1,4}|last)(?:-(\d{1,4}|last))?")


class HasSites(Protocol):
    """A model that knows its own sites; see ``forward.Reader``."""

    def sites(self) -> dict[str, int]:
        """Return the default sites with their layers."""

    def hooks(self) -> dict[str, str]:
        """Return every name of a place that has one state a position, with the hook that it stands for."""


def choose_sites(model: HasSites, patterns: Sequence[str], layers: str) -> dict[str, int | None]:
    """Return the sites to measure with their layers, in the model's order.

    A place has several names (``blocks.0.hook_mlp_out`` and ``blocks.0.mlp.hook_out``): where patterns match more than
    one of them it is taken once, under the shortest. A site outside all blocks has no layer, but those of the final
    LayerNorm belong to the last one.

    Raises:
        UserError: a pattern that matches nothing, malformed or missing layers, or nothing left of both.
    """
    default = model.sites()
    last = max(default.values())
    sites = {site: layer for site, layer in _match(model.hooks(), patterns, last)} if patterns else {**default}
    wanted = parse_layers(layers, last + 1)
    chosen = {site: layer for site, layer in sites.items() if wanted is None or layer in wanted}
    if not chosen:
        raise UserError(f"sites {', '.join(patterns)} with layers {layers!r} leave nothing to measure")
    return chosen


def check_layers(text: str) -> None:
    """Check that ``parse_layers`` can read ``text``, however many layers there are. Raises ``UserError``."""
    if text.strip() != "all":
        for part in (word.strip() for word in text.split(",")):
            _read_layers(part, text)


def parse_layers(text: str, count: int) -> set[int] | None:
    """Return the layers that ``text`` names, ``None`` for all.

    Raises:
        UserError: malformed, or a layer that the model does not have.
    """
    if text.strip() == "all":
        return None
    chosen: set[int] = set()
    for part in (word.strip() for word in text.split(",")):
        match = _read_layers(part, text)
        first, final = (count - 1 if word == "last" else int(word) for word in (match[1], match[2] or match[1]))
        if first > final or final >= count:
            raise UserError(f"layers {text!r}: {part!r} is not within the model's layers, 0 to {count - 1}")
        chosen.update(range(first, final + 1))
    return chosen


def _read_layers(part: str, text: str) -> re.Match[str]:
    match = _LAYERS.fullmatch(part)
    if match is None:
        raise UserError(f"layers {text!r}: cannot read {part!r}; expected all, or a list such as 0,3-5,last")
    return match


def _match(hooks: Mapping[str, str], patterns: Sequence[str], last: int) -> list[tuple[str, int | None]]:
    names: dict[str, str] = {}
    for pattern in patterns:
        matching = [name for name in hooks if fnmatchcase(name, pattern)]
        if not matching:
            raise UserError(f"no site {pattern!r}{nearest(pattern, hooks)}: no such hook gives a state a position")
        for name in sorted(matching, key=lambda name: (name.count("."), name == hooks[name])):
            names.setdefault(hooks[name], name)
    return [(names[hook], _find_layer(names[hook], last)) for hook in dict.fromkeys(hooks.values()) if hook in names]


def _find_layer(name: str, last: int) -> int | None:
    if name.startswith("ln_final."):
        return last
    match = _BLOCK.match(name)
    return int(match[1]) if match else None
