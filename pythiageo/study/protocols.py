"""Protocols: named sets of definitions, so that every event says under which one it was read."""

from __future__ import annotations

from dataclasses import dataclass

from pythiageo.errors import UserError, nearest

FOUND = "found"
AT_EDGE = "at-edge"
NOT_REACHED = "not-reached"
UNDEFINED = "undefined"
EVENT_STATUSES = {
    FOUND: "it happened, at this step",
    AT_EDGE: "an extreme that may lie outside the protocol's window: the last value in it, or a lower one follows it",
    NOT_REACHED: "it had not happened by the run's last checkpoint, or was still going on there",
    UNDEFINED: "there is nothing to find: no values, fewer than three, no fall, or a probe set that changed",
}
"""What an event may be, and what each means; the event's ``reason`` gives the particulars."""
TOLERANCE = 1e-7
"""Accuracies are counts over fewer than a million examples, so two that differ differ by more than this.
It keeps 0.4 / 0.8 (0.49999999999999994 in binary) at the threshold 0.5."""


@dataclass(frozen=True)
class Protocol:
    """One set of definitions.

    Attributes:
        name: what tables and the command line call it.
        accuracy_threshold: accuracy (a share, 0 to 1) that counts as acquired.
        inclusive: whether the threshold itself counts (``>=``) or not (``>``).
        consecutive: checkpoints in a row that must fulfil the condition.
        chance_corrected: whether accuracy ``a`` is first mapped to ``(a - c) / (1 - c)``, where ``c`` is
            the larger of the declared chance and the share of the most common answer.
        floor_window: first and last step (both included) in which the floor of a measure is searched.
        edge_counts: whether a minimum at the edge of that window (status ``at-edge``) is a floor and a transition to
            claims and comparisons: it is where the source takes the smallest value of the window, wherever that lies.
        log_prob_shares: shares of the way from the first to the last mean log-probability; empty where the
            protocol has no log-probability acquisition.
        least_fall: share of its first value that a measure must fall by for its minimum to be a floor, a transition and
            a collapse; 0 where the source asks for none, and then a fall of 0.04% counts.
        source: where the definitions come from.
        version: of our reading of that source, raised whenever it changes. Sources leave things open (billa-v4: which
            rank its floors are of, so they are read from the rank over sigma and from that over sigma^2).
    """

    name: str
    accuracy_threshold: float
    inclusive: bool
    consecutive: int
    chance_corrected: bool
    floor_window: tuple[int, int]
    log_prob_shares: tuple[float, ...]
    source: str
    least_fall: float = 0.0
    edge_counts: bool = True
    version: int = 1

    def too_shallow(self, first: float, minimum: float) -> str | None:
        """Return why a fall from ``first`` to ``minimum`` is no collapse, ``None`` if it is one (or is none at all)."""
        if not 0 <= first - minimum < self.least_fall * abs(first):
            return None
        fall = 100 * (first - minimum) / abs(first)
        return f"it fell by {fall:.2f}% of its first value, and a collapse is {100 * self.least_fall:g}% or more"

    @property
    def counted(self) -> list[str]:
        """The statuses of an event that is one to what builds on events."""
        return [FOUND, AT_EDGE] if self.edge_counts else [FOUND]

    def acquired(self, accuracy: float) -> bool:
        """Return whether an accuracy (chance-corrected where the protocol says so) meets the threshold."""
        if self.inclusive:
            return accuracy >= self.accuracy_threshold - TOLERANCE
        return accuracy > self.accuracy_threshold + TOLERANCE

    @property
    def rule(self) -> str:
        """The acquisition rule in words."""
        corrected = "chance-corrected accuracy" if self.chance_corrected else "accuracy"
        sign = ">=" if self.inclusive else ">"
        return f"{corrected} {sign} {self.accuracy_threshold:g} at {self.consecutive} checkpoints in a row"

    @property
    def origin(self) -> str:
        """Where the definitions come from, and which version of our reading of it this is."""
        return f"{self.source}, version {self.version} of its definitions here"


_SHARES = (0.25, 0.5, 0.75, 0.9)
PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("billa-v1", 0.1, False, 5, False, (0, 200), (), "arXiv 2602.15997 v1"),
        Protocol("billa-v4", 0.5, True, 3, False, (0, 10_000), _SHARES, "arXiv 2602.15997 v4"),
        Protocol(
            "pythiageo",
            0.5,
            True,
            3,
            True,
            (0, 10_000),
            _SHARES,
            "billa-v4, corrected for chance, with a least depth of collapse and its end within the window",
            least_fall=0.05,
            edge_counts=False,
            version=3,
        ),
    )
}
"""The protocols by name. ``pythiageo`` differs from ``billa-v4`` in three things: accuracy is corrected for chance; a
measure that falls by less than 5% has no floor (the bootstrap error of a nano model's rank of 200 examples is 1% of it
in the median and 4% at most, so that a smaller fall may be none); and a minimum at the edge of the window is shown, and
counts for nothing, since the fall may go on outside."""


def get_protocol(name: str) -> Protocol:
    """Return the protocol of this name.

    Raises:
        UserError: there is none; the message names those there are.
    """
    if name not in PROTOCOLS:
        raise UserError(
            f"unknown protocol {name!r}{nearest(name, PROTOCOLS)}; the protocols are {', '.join(PROTOCOLS)}."
        )
    return PROTOCOLS[name]
