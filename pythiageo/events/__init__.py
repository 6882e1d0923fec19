"""What happened in a run: events, floors and layer profiles, as pure functions of the observation table."""

from pythiageo.events.find import EVENT_COLUMNS, events, first_run, floors
from pythiageo.events.phases import PHASE_COLUMNS, phases
from pythiageo.events.place import Place, choose_place
from pythiageo.events.profile import layer_profile
from pythiageo.events.run import Run, open_run, open_runs
from pythiageo.events.trajectory import Trajectory, trajectories, without_duplicates
from pythiageo.events.transitions import transitions
from pythiageo.study.protocols import AT_EDGE, EVENT_STATUSES, FOUND, PROTOCOLS, Protocol, get_protocol

__all__ = [
    "AT_EDGE",
    "EVENT_COLUMNS",
    "EVENT_STATUSES",
    "FOUND",
    "PHASE_COLUMNS",
    "PROTOCOLS",
    "Place",
    "Protocol",
    "Run",
    "Trajectory",
    "choose_place",
    "events",
    "first_run",
    "floors",
    "get_protocol",
    "layer_profile",
    "open_run",
    "open_runs",
    "phases",
    "trajectories",
    "transitions",
    "without_duplicates",
]
