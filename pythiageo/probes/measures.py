"""The scores of a probe set, and what stands beside them."""

from __future__ import annotations

from typing import NamedTuple


class ScoreMeasure(NamedTuple):
    """A column of scores: its name in the table, and in a sentence what it is.

    ``title`` and ``unit``: what an axis calls it, and what it counts.
    """

    name: str
    definition: str
    title: str
    unit: str = ""


SCORE_MEASURES = (
    ScoreMeasure(
        name="accuracy",
        title="accuracy",
        unit="share of examples",
        definition="Accuracy: share of probe examples that count as right under the task's rule.",
    ),
    ScoreMeasure(
        name="accuracy_unseen",
        title="accuracy on prompts never met",
        unit="share of examples",
        definition="Accuracy on the probe examples whose prompts training has not met up to this step.",
    ),
    ScoreMeasure(
        name="prompts_seen",
        title="prompts met in training",
        unit="share of examples",
        definition="Share of the probe examples whose prompts training has met up to this step, with their answers.",
    ),
    ScoreMeasure(
        name="accuracy_normalised",
        title="accuracy, normalised by length",
        unit="share of examples",
        definition="Accuracy after dividing each option's log-probability by its length in characters.",
    ),
    ScoreMeasure(
        name="log_prob",
        title="mean log-probability",
        unit="nats a token",
        definition="Mean log-probability of an answer token, in nats, given the prompt and the answer so far.",
    ),
    ScoreMeasure(
        name="perplexity",
        title="perplexity",
        definition="exp of minus the mean log-probability of a token.",
    ),
    ScoreMeasure(
        name="chance_accuracy",
        title="declared chance",
        unit="share of examples",
        definition="What a task's file declares as chance: how often the best constant reply is right.",
    ),
    ScoreMeasure(
        name="items_left_out",
        title="items left out",
        definition="How many items of the probe set cannot be measured with the model's tokenizer and context.",
    ),
    ScoreMeasure(
        name="tokens_left_out",
        title="tokens left out",
        definition="How many tokens of the probe set's texts are in no passage, where texts are cut into passages.",
    ),
    ScoreMeasure(
        name="majority_rate",
        title="majority rate",
        unit="share of examples",
        definition="How often the best constant reply is right on this very probe set.",
    ),
    ScoreMeasure(
        name="held_out_loss",
        title="held-out loss",
        unit="nats a token",
        definition="Mean cross-entropy on held-out text, in nats a predicted token.",
    ),
)
