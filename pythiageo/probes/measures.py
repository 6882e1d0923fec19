"""The scores of a probe set, and what stands beside them."""

from __future__ import annotations

from typing import NamedTuple


class ScoreMeasure(NamedTuple):
    """A column of scores: its name in the table, and in a sentence what it is."""

    name: str
    definition: str


SCORE_MEASURES = (
    ScoreMeasure(
        name="accuracy",
        definition=(
            "Accuracy: share of probe examples that count as right under the task's rule. Dotted: the larger"
            " of the declared chance and the share of the most common answer."
        ),
    ),
    ScoreMeasure(
        name="accuracy_normalised",
        definition="Accuracy after dividing each option's log-probability by its length in characters.",
    ),
    ScoreMeasure(
        name="log_prob",
        definition="Mean log-probability of an answer token, in nats, given the prompt and the answer so far.",
    ),
    ScoreMeasure(
        name="perplexity",
        definition="exp of minus the mean log-probability of a token.",
    ),
    ScoreMeasure(
        name="chance_accuracy",
        definition="What a task's file declares as chance: how often the best constant reply is right.",
    ),
    ScoreMeasure(
        name="items_left_out",
        definition="How many items of the probe set cannot be measured with the model's tokenizer and context.",
    ),
    ScoreMeasure(
        name="majority_rate",
        definition="How often the best constant reply is right on this very probe set.",
    ),
    ScoreMeasure(
        name="held_out_loss",
        definition="Mean cross-entropy on held-out text, in nats a predicted token.",
    ),
)
