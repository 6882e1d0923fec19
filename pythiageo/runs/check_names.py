"""Every name in a config, looked up before anything is written or asked of the Hub."""

from __future__ import annotations

from pythiageo.config.runs import AnalyzeConfig, FollowConfig, RunConfig
from pythiageo.config.tables import LINEAR_PROBE
from pythiageo.errors import UserError, nearest
from pythiageo.geometry.measure import load_measures
from pythiageo.geometry.measures.alpha_req import find_over_ranks
from pythiageo.landscape.measures import LANDSCAPE_GROUPS, LANDSCAPE_MEASURES
from pythiageo.lens.versions import check_versions
from pythiageo.measurement.geometry_plan import GeometryPlan
from pythiageo.measurement.landscape import llc_settings
from pythiageo.measurement.probe_sets import choose_tasks
from pythiageo.measurement.sites import check_layers
from pythiageo.probes.task import get_levels
from pythiageo.runs.harness import check_harness
from pythiageo.series.steps import check_selection

SAVES, GIVEN = "saves", "given"
"""The steps of a run that follows a training: those at which it saves; those at which a loop asks for them."""


def check_names(config: RunConfig) -> None:
    """Check tasks, levels, measures, readouts, layers, and the way steps are named.

    What only the series or its model can tell is not checked here: whether a step or a site is there.

    Raises:
        UserError: a name that there is not, with the nearest one; or a library of a version that is not known to work.
    """
    tasks = choose_tasks(config.probes.tasks, config.probes)
    for level in config.probes.levels:
        if all(level not in task.levels for task in tasks):
            get_levels(tasks[0], level)
    known = {*load_measures(), *LANDSCAPE_MEASURES, *LANDSCAPE_GROUPS, LINEAR_PROBE}
    for name in (*config.measures.geometry, *config.measures.landscape.measures):
        if name not in known and find_over_ranks(name) is None:
            raise UserError(f"no measure {name!r}{nearest(name, known)}; pythiageo measures lists what there is")
    GeometryPlan.of(config.measures)
    check_layers(config.measures.layers)
    landscape = config.measures.landscape
    llc_settings(landscape, landscape.examples)
    check_selection(landscape.steps)
    if isinstance(config, AnalyzeConfig) or (isinstance(config, FollowConfig) and config.steps not in (SAVES, GIVEN)):
        check_selection(config.steps)
    if isinstance(config, AnalyzeConfig):
        check_harness(config.harness)
    if isinstance(config, AnalyzeConfig | FollowConfig):
        check_versions()
