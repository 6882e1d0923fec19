"""The weight measures of an audit by value: ``pythiageo audit REPO --values --out audit.json``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pythiageo.errors import UserError
from pythiageo.importers.results import Request, Results
from pythiageo.series.audit.weights import WEIGHT_MEASURES
from pythiageo.untrusted_files import MIB, BadFileError, read_json

_LIMIT = 64 * MIB


def read_results(request: Request) -> Results | None:
    """Return the weight measures that an audit's file holds; ``None`` if it is no audit.

    Each is of a matrix by its name (``site``) and of some rows of it (``readout``, such as ``rows=300:428``).

    Raises:
        UserError: an audit by hashes alone, or one whose rows are not as they were written.
    """
    file = request.source
    if request.mapping is not None or file.suffix != ".json" or not file.is_file():
        return None
    try:
        audit = read_json(file, _LIMIT)
    except BadFileError:
        return None  # whoever can read it says what is wrong
    if not isinstance(audit, dict) or not {"repo", "content", "steps"} <= audit.keys():
        return None
    try:
        rows = [(file, row) for row in _rows(audit["values"]["weights"])]
    except KeyError as error:
        if "values" not in audit:
            raise UserError(f"{file}: an audit by hashes alone: pythiageo audit --values measures weights") from None
        raise UserError(f"{file}: a damaged audit: a row has no {error}") from None
    except TypeError:
        raise UserError(f"{file}: a damaged audit: its weights are no rows") from None
    repo = str(audit["repo"])
    return Results(repo.rpartition("/")[2], rows, [file], series=repo)


def _rows(weights: Any) -> Iterator[dict[str, Any]]:
    for row in weights:
        first, count = row["first"], row["rows"]
        place = {"step": row["step"], "layer": row["layer"], "site": row["name"], "n": count}
        for measure in WEIGHT_MEASURES:
            value = row[measure.name]
            yield {**place, "readout": f"rows={first}:{first + count}", "measure": measure.name, "value": value}
