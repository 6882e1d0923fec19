"""What the linear probe gives, and what it must be compared with."""

from __future__ import annotations

from typing import NamedTuple


class LinearProbeMeasure(NamedTuple):
    """A column of the linear probe: its name in the table, and in a sentence what it is."""

    name: str
    definition: str


LINEAR_PROBE_MEASURES = (
    LinearProbeMeasure(
        name="linear_probe",
        definition=(
            "Held-out accuracy of a logistic regression from the states at answer positions to the next token."
        ),
    ),
    LinearProbeMeasure(
        name="linear_probe_control",
        definition=(
            "The linear probe's accuracy with the next tokens in random order: what their frequencies alone give."
        ),
    ),
    LinearProbeMeasure(
        name="linear_probe_selectivity",
        definition="The linear probe's accuracy less its control's.",
    ),
    LinearProbeMeasure(
        name="linear_probe_model",
        definition="The model's own next-token accuracy at the probe's held-out positions.",
    ),
    LinearProbeMeasure(
        name="linear_probe_answer",
        definition="Share of held-out examples of which the linear probe has every answer token right.",
    ),
    LinearProbeMeasure(
        name="linear_probe_answer_model",
        definition="Share of the probe's held-out examples of which the model has every answer token right.",
    ),
    LinearProbeMeasure(
        name="linear_probe_majority",
        definition="How often the most common fitted token is right at the probe's held-out positions.",
    ),
)
