"""What is needed to cite an audit: of what content, by which version, on which day."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from pythiageo._version import __version__
from pythiageo.series.files.weight_files import WeightFile


def describe_record(repo: str, steps: Iterable[tuple[int, str | None, Sequence[WeightFile]]]) -> dict[str, Any]:
    """Return what names an audit: repository, day (UTC), version, and the sha256 of what was audited.

    ``content`` is over step, commit and the contents of the weight files of every step: two audits that have it in
    common were of the same files.
    """
    digest = hashlib.sha256()
    for step, commit, files in steps:
        digest.update(f"{step}\0{commit}\0".encode())
        for file in files:
            digest.update(f"{file.name}\0{file.content}\0{file.size}\n".encode())
    return {
        "repo": repo,
        "pythiageo": __version__,
        "date": datetime.now(UTC).date().isoformat(),
        "content": digest.hexdigest(),
    }
