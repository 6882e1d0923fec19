"""The observation table: its schema, where a run keeps it, how it is read and exported."""

from pythiageo.observations.export import FORMATS, wide, write_table
from pythiageo.observations.manifest import Manifest, read_manifest, read_whole_manifest
from pythiageo.observations.reader import read_observations
from pythiageo.observations.schema import COLUMNS, SCHEMA_VERSION, SORT_KEY, STATUSES, Observation
from pythiageo.observations.store import ObservationStore, table_of

__all__ = [
    "COLUMNS",
    "FORMATS",
    "SCHEMA_VERSION",
    "SORT_KEY",
    "STATUSES",
    "Manifest",
    "Observation",
    "ObservationStore",
    "read_manifest",
    "read_observations",
    "read_whole_manifest",
    "table_of",
    "wide",
    "write_table",
]
