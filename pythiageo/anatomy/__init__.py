"""What happened in a run: events, floors and layer profiles, as pure functions of the observation table."""

from pythiageo.anatomy.events import EVENT_COLUMNS, events, first_run, floors
from pythiageo.anatomy.profile import layer_profile
from pythiageo.anatomy.protocols import AT_EDGE, EVENT_STATUSES, FOUND, PROTOCOLS, Protocol, get_protocol
from pythiageo.anatomy.trajectory import RANK_MEASURES, Trajectory, trajectories, without_duplicates
from pythiageo.anatomy.transitions import TRANSITIONS, transitions

__all__ = [
    "AT_EDGE",
    "EVENT_COLUMNS",
    "EVENT_STATUSES",
    "FOUND",
    "PROTOCOLS",
    "RANK_MEASURES",
    "TRANSITIONS",
    "Protocol",
    "Trajectory",
    "events",
    "first_run",
    "floors",
    "get_protocol",
    "layer_profile",
    "trajectories",
    "transitions",
    "without_duplicates",
]
