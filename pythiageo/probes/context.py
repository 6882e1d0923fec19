"""Examples that are longer than a model's context, scored as lm-evaluation-harness does."""

from __future__ import annotations

from collections.abc import Iterator

from pythiageo.errors import UserError
from pythiageo.probes.encoding import Encoded


def cut_left(example: Encoded, context: int) -> Encoded:
    """Return an example whose first tokens are left out, so that ``context`` positions are fed; itself if it fits.

    Raises:
        UserError: the answer's own tokens do not fit.
    """
    over = len(example.ids) - context
    if over <= 0:
        return example
    if example.answer_positions[0] < over:
        raise UserError(f"its answer takes {len(example.targets)} positions, but the model's context is {context}")
    return Encoded(
        ids=example.ids[over:],
        answer_positions=tuple(position - over for position in example.answer_positions),
        targets=example.targets,
        equals_position=max(0, example.equals_position - over),
    )


def windows(text: Encoded, context: int) -> Iterator[Encoded]:
    """Yield a running text in windows of ``context`` positions at most, in which each token is predicted once.

    Windows follow one another; the last one begins earlier, so that it is as long as the others.
    """
    done = 0
    while done < len(text.targets):
        end = min(done + context, len(text.targets))
        start = max(0, end - context)
        yield Encoded(text.ids[start:end], tuple(range(done - start, end - start)), text.targets[done:end], 0)
        done = end
