"""The observation table: its schema, where a run keeps it, how it is read and exported."""

from pythiageo.observations.export import FORMATS, wide, write_table
from pythiageo.observations.reader import read_manifest, read_observations
from pythiageo.observations.schema import COLUMNS, SCHEMA_VERSION, SORT_KEY, STATUSES, Observation
from pythiageo.observations.store import ObservationStore, table_of

__all__ = [
    "COLUMNS",
    "FORMATS",
    "SCHEMA_VERSION",
    "SORT_KEY",
    "STATUSES",
    "Observation",
    "ObservationStore",
    "read_manifest",
    "read_observations",
    "table_of",
    "wide",
    "write_table",
]
