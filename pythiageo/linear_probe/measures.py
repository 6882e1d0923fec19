"""What the linear probe gives, and what it must be compared with."""

from __future__ import annotations

from typing import NamedTuple


class LinearProbeMeasure(NamedTuple):
    """A column of the linear probe: its name in the table, and in a sentence what it is.

    ``title`` and ``unit``: what an axis calls it, and what it counts.
    """

    name: str
    definition: str
    title: str
    unit: str = ""


LINEAR_PROBE_MEASURES = (
    LinearProbeMeasure(
        name="linear_probe",
        title="linear probe",
        unit="share of positions",
        definition=(
            "Held-out accuracy of a logistic regression from the states at answer positions to the next token."
        ),
    ),
    LinearProbeMeasure(
        name="linear_probe_control",
        title="linear probe, control",
        unit="share of positions",
        definition=(
            "The linear probe's accuracy with the next tokens in random order: what their frequencies alone give."
        ),
    ),
    LinearProbeMeasure(
        name="linear_probe_selectivity",
        title="linear probe, selectivity",
        unit="share of positions",
        definition="The linear probe's accuracy less its control's.",
    ),
    LinearProbeMeasure(
        name="linear_probe_model",
        title="model at the probe’s positions",
        unit="share of positions",
        definition="The model's own next-token accuracy at the probe's held-out positions.",
    ),
    LinearProbeMeasure(
        name="linear_probe_answer",
        title="linear probe, whole answers",
        unit="share of examples",
        definition="Share of held-out examples of which the linear probe has every answer token right.",
    ),
    LinearProbeMeasure(
        name="linear_probe_answer_model",
        title="model, whole answers",
        unit="share of examples",
        definition="Share of the probe's held-out examples of which the model has every answer token right.",
    ),
    LinearProbeMeasure(
        name="linear_probe_majority",
        title="most common token",
        unit="share of positions",
        definition="How often the most common fitted token is right at the probe's held-out positions.",
    ),
)
