"""docs/api.md lists what each public room exports, no more and no less, and no room loads more than it says."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
ROOMS = dict(re.findall(r"^## (pythiageo[\w.]*)\n(.*?)(?=^## |\Z)", TEXT, flags=re.DOTALL | re.MULTILINE))
LAZY = ["pythiageo", "pythiageo.geometry", "pythiageo.landscape", "pythiageo.linear_probe"]


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_listed_and_there(room: str) -> None:
    module = importlib.import_module(room)
    cells = [row.split("|")[1] for row in ROOMS[room].splitlines() if row.startswith("| `")]
    assert set(re.findall(r"`(\w+)`", " ".join(cells))) == set(module.__all__)
    for name in module.__all__:
        assert getattr(module, name).__doc__
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match="nothing_such"):
        module.nothing_such  # noqa: B018


@pytest.mark.parametrize("room", [room for room in ROOMS if room not in {"pythiageo.series", "pythiageo.publish"}])
def test_no_room_loads_torch_that_does_not_need_it(room: str) -> None:
    heavy = ("torch", "numpy") if room in LAZY else ("torch",)
    code = f"import sys, {room}; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0


def test_the_package_is_typed() -> None:
    assert (ROOT / "pythiageo" / "py.typed").is_file()
