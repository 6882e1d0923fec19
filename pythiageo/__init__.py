"""pythiageo: layerwise geometry of Pythia checkpoints and of small synthetic transformers, by one code path.

``open_run`` opens a run folder, ``plot`` draws runs, ``measure`` measures a model in memory, and ``MeasureCallback``
does while transformers' ``Trainer`` trains. Each is imported when it is first used: ``import pythiageo`` loads no
library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pythiageo._version import __version__
from pythiageo.lazy import lazy_names

if TYPE_CHECKING:
    from pythiageo.api.callback import MeasureCallback
    from pythiageo.api.memory import measure
    from pythiageo.api.plotting import plot
    from pythiageo.errors import PythiageoError, UserError
    from pythiageo.events.run import Run, open_run
    from pythiageo.no_value import NoValue, NoValueError

__all__ = [
    "MeasureCallback",
    "NoValue",
    "NoValueError",
    "PythiageoError",
    "Run",
    "UserError",
    "__version__",
    "measure",
    "open_run",
    "plot",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "api.callback": ["MeasureCallback"],
        "api.memory": ["measure"],
        "api.plotting": ["plot"],
        "events.run": ["Run", "open_run"],
        "errors": ["PythiageoError", "UserError"],
        "no_value": ["NoValue", "NoValueError"],
    },
)
