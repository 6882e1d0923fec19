"""pythiageo: layerwise geometry of Pythia checkpoints and of small synthetic transformers, by one code path.

``open_run`` opens a run folder, ``plot`` draws runs, ``measure`` measures a model in memory, ``MeasureCallback``
measures while transformers' ``Trainer`` trains, ``recorder`` while a loop of your own does, ``checkpoints`` gives those
of a series to code of your own. Each is imported when it is first used: ``import pythiageo`` loads no library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pythiageo._version import __version__
from pythiageo.lazy import lazy_names

if TYPE_CHECKING:
    from pythiageo.api.callback import MeasureCallback
    from pythiageo.api.checkpoints import Checkpoints, CheckpointValue, checkpoints
    from pythiageo.api.memory import measure
    from pythiageo.api.plotting import plot
    from pythiageo.api.recording import Recorder, recorder
    from pythiageo.api.series_checkpoint import SeriesCheckpoint
    from pythiageo.errors import PythiageoError, UserError
    from pythiageo.events.run import Run, open_run
    from pythiageo.no_value import NoValue, NoValueError

__all__ = [
    "CheckpointValue",
    "Checkpoints",
    "MeasureCallback",
    "NoValue",
    "NoValueError",
    "PythiageoError",
    "Recorder",
    "Run",
    "SeriesCheckpoint",
    "UserError",
    "__version__",
    "checkpoints",
    "measure",
    "open_run",
    "plot",
    "recorder",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "api.callback": ["MeasureCallback"],
        "api.checkpoints": ["CheckpointValue", "Checkpoints", "checkpoints"],
        "api.memory": ["measure"],
        "api.plotting": ["plot"],
        "api.recording": ["Recorder", "recorder"],
        "api.series_checkpoint": ["SeriesCheckpoint"],
        "events.run": ["Run", "open_run"],
        "errors": ["PythiageoError", "UserError"],
        "no_value": ["NoValue", "NoValueError"],
    },
)
