"""pythiageo: layerwise geometry of Pythia checkpoints and of small synthetic transformers, by one code path.

``open_run`` opens a run folder, ``measure`` measures a model in memory, ``MeasureCallback`` measures while
transformers' ``Trainer`` trains. Each is imported when it is first used: ``import pythiageo`` loads no library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pythiageo._version import __version__

if TYPE_CHECKING:
    from pythiageo.api.callback import MeasureCallback
    from pythiageo.api.memory import measure
    from pythiageo.errors import PythiageoError, UserError
    from pythiageo.events.run import Run, open_run

__all__ = ["MeasureCallback", "PythiageoError", "Run", "UserError", "__version__", "measure", "open_run"]

_HOMES = {
    "MeasureCallback": "pythiageo.api.callback",
    "PythiageoError": "pythiageo.errors",
    "Run": "pythiageo.events.run",
    "UserError": "pythiageo.errors",
    "measure": "pythiageo.api.memory",
    "open_run": "pythiageo.events.run",
}


def __getattr__(name: str) -> Any:
    """Import what ``name`` stands for from its home (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pythiageo' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
