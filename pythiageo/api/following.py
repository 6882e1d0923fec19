"""What ``MeasureCallback`` and ``recorder`` share: their config, and the numbers that they give to a log."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pythiageo.config.options import keyword_overrides
from pythiageo.config.runs import FollowConfig, make_config
from pythiageo.events.run import Run
from pythiageo.figures.overview import latest_numbers
from pythiageo.measurement.result import CheckpointResult
from pythiageo.observations import table_of
from pythiageo.runs.check_names import check_names

LOG = logging.getLogger("pythiageo")
PREFIX = "pythiageo/"
"""What the names of numbers in somebody's log begin with."""


def make_follow_config(
    facts: Mapping[str, Any], keywords: Mapping[str, Any], settings: Mapping[str, Any] | None, who: str
) -> FollowConfig:
    """Return the config of a run that follows a training; ``who`` is named in errors.

    Raises:
        UserError: a mistake in the keywords.
    """
    config = make_config(dict(facts), keyword_overrides(FollowConfig, keywords, settings), "follow", who)
    assert isinstance(config, FollowConfig)
    check_names(config)
    return config


def numbers_for_log(result: CheckpointResult) -> dict[str, float]:
    """Return the main numbers of a step by name, ``pythiageo/rankme/ADD``: what is in its table by layer is not."""
    numbers, left_out = latest_numbers(Run(None, table_of(result.step, result.rows)))
    for why in left_out:
        LOG.info(f"step {result.step}: not logged: {why}")
    return {PREFIX + name: value for name, value in numbers.items()}


def say_status(result: CheckpointResult, path: object) -> None:
    """Warn of a step that has no numbers."""
    if result.status != "ok":
        LOG.warning(f"{path}: step {result.step} has no numbers ({result.status}): see pythiageo runs show {path}")
