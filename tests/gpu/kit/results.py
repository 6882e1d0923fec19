"""What the kit found: a line a result, written and synced as it comes."""

from __future__ import annotations

import json
import os
import platform
import tarfile
from pathlib import Path
from typing import Any

from tests.gpu.kit.summary import as_text, summarize

MOST = 15 * 2**20
"""Bytes of a packed run, at most: what some machines give back of one file."""


class Results:
    """``results.jsonl`` and ``log.txt`` of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log.txt"
        self._file = folder / "results.jsonl"

    def add(self, part: str, **found: Any) -> None:
        """Write one result to the disk, and print it."""
        line = json.dumps({"part": part, **found})
        print(line, flush=True)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def machine(self, device: str) -> dict[str, Any]:
        """Return what the figures were measured on."""
        import torch

        cuda = device != "cpu" and torch.cuda.is_available()
        return {
            "card": torch.cuda.get_device_name() if cuda else None,
            "gpu_bytes": torch.cuda.get_device_properties(0).total_memory if cuda else None,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "cores": os.cpu_count(),
        }

    def summarize(self) -> str:
        """Write ``summary.txt``, all that was found so far as a table (``kit.summary``), and return it."""
        text = as_text(summarize(self._read()))
        (self.folder / "summary.txt").write_text(text, encoding="utf-8")
        return text

    def _read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._file.read_text(encoding="utf-8").splitlines()]

    def show(self) -> int:
        """Print the summary; return 1 where a part failed of itself."""
        print(self.summarize())
        ended = {line["part"]: line["ended"] for line in self._read() if "ended" in line}
        return int(any(isinstance(how, int) and how for how in ended.values()))


def pack(run: Path, folder: Path) -> None:
    """Pack a run folder without its weights into ``folder``; where it is too large for that, a file says so."""
    if not (run / "manifest.json").is_file():
        return
    temporary, packed = folder / f".{run.name}.tar.xz", folder / f"{run.name}.tar.xz"
    with tarfile.open(temporary, "w:xz", preset=1) as tar:
        for path in sorted(run.rglob("*")):
            if path.is_file() and path.suffix in {".json", ".jsonl", ".parquet"} and "checkpoints" not in path.parts:
                tar.add(path, f"{run.name}/{path.relative_to(run)}")
    if temporary.stat().st_size > MOST:
        (folder / f"{run.name}.txt").write_text(f"{run.name}: {temporary.stat().st_size} bytes packed, not kept\n")
        temporary.unlink()
        return
    temporary.replace(packed)
