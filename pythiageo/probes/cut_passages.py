"""Running texts cut into passages (``passages.Passages``), each fed whole; every token is predicted once at most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from pythiageo.errors import UserError
from pythiageo.probes.encoding import Encoded, Tokenizer, tokenize_text
from pythiageo.probes.passages import Passages
from pythiageo.probes.probeset import ProbeSet


@dataclass(frozen=True)
class Cut:
    """The passages of a probe set of running texts.

    ``text`` (passage): the number from 0 of the text that it is of; of a packed one, of the text that it begins in.
    ``kept``: which texts these are, each once, or of packed ones that of each passage. ``owner`` (passage): its place
    in ``kept``, ``None`` where each has its own. ``refused``: why a text has no passage, by its number. ``tokens``: of
    all other texts, those between packed ones included; ``left_out``: how many of them are in no passage;
    ``shortened``: how many texts these are of.
    """

    passages: Passages
    encoded: list[Encoded]
    text: list[int]
    refused: dict[int, str]
    tokens: int
    left_out: int
    shortened: int

    @property
    def kept(self) -> tuple[int, ...]:
        """Which texts passages are of, or begin in."""
        return tuple(self.text if self.passages.way == "pack" else dict.fromkeys(self.text))

    @property
    def owner(self) -> tuple[int, ...] | None:
        """The place in ``kept`` of each passage's text, ``None`` where each has its own."""
        place = {text: number for number, text in enumerate(self.kept)}
        return tuple(place[text] for text in self.text) if len(self.kept) < len(self.text) else None

    @property
    def told(self) -> bool:
        """Whether a score must say how the texts were cut: they are not fed as they are."""
        return self.passages.way != "truncate" or self.left_out > 0

    @property
    def summary(self) -> str:
        """How the texts were cut, and what that left out, in words."""
        lost = f"{self.left_out:,} of {self.tokens:,} tokens left out"
        return f"{self.passages.name}: {lost}" + (f", of {self.shortened:,} texts" if self.shortened else "")


def cut_probe_set(probe_set: ProbeSet, tokenizer: Tokenizer, context: int | None) -> Cut:
    """Cut the texts of a probe set, whose ``passages`` must be set; packed are those of one level together.

    Refused are texts of less than two tokens, those that the tokenizer cannot read, those of which a passage is longer
    than the model's ``context``, and, packed, those of a level that do not fill one passage together.
    """
    passages = probe_set.passages
    assert passages is not None
    texts, refused = _tokenize([example.answer for example in probe_set.examples], tokenizer)
    for number, ids in list(texts.items()):
        longest = passages.tokens if passages.way == "pack" else min(len(ids), passages.tokens)
        if context is not None and longest > context:
            refused[number] = (
                f"a passage takes {longest} positions, but the model's context is {context}: lower probes.text_tokens"
            )
            del texts[number]
    if passages.way == "pack":
        return _pack(probe_set, texts, refused, tokenizer.end)
    cut = {number: cut_passages(ids, passages) for number, ids in texts.items()}
    lost = [len(ids) - passages.tokens for ids in texts.values()] if passages.way == "truncate" else []
    lost = [tokens for tokens in lost if tokens > 0]
    return Cut(
        passages,
        encoded=list(chain.from_iterable(cut.values())),
        text=[number for number, found in cut.items() for _ in found],
        refused=refused,
        tokens=sum(map(len, texts.values())),
        left_out=sum(lost),
        shortened=len(lost),
    )


def cut_passages(ids: Sequence[int], passages: Passages) -> list[Encoded]:
    """Return the passages of one text of at least two tokens, which is truncated or strided over.

    A token is predicted in the first passage that holds it and the one before it. The passage that reaches the end of
    its text is the last, and may be shorter than the others.

    >>> [one.ids for one in cut_passages(range(7), Passages("stride", 4, 2))]
    [(0, 1, 2, 3), (2, 3, 4, 5), (4, 5, 6)]
    >>> [one.targets for one in cut_passages(range(7), Passages("stride", 4, 2))]
    [(1, 2, 3), (4, 5), (6,)]
    """
    stride = passages.stride
    starts = [0] if stride is None else range(0, max(1, len(ids) - passages.tokens + stride), stride)
    found, done = [], 1
    for start in starts:
        end = min(start + passages.tokens, len(ids))
        found.append(_passage(ids[start:end], done - start))
        done = end
    return found


def pack_passages(texts: Sequence[Sequence[int]], tokens: int, end: int | None) -> tuple[list[Encoded], list[int], int]:
    """Return texts one after another in passages of one length, the text that each begins in, and how many tokens stay.

    Between two texts stands the token ``end``, unless the first ends with it already, or there is none. A passage may
    hold parts of several texts; each of its tokens sees all that stand before it in the passage.

    >>> [one.ids for one in pack_passages([(1, 2, 3), (4, 5)], 2, end=0)[0]]
    [(1, 2), (3, 0), (4, 5)]
    """
    joined = [
        [*text, *([end] if end is not None and text[-1] != end and number + 1 < len(texts) else [])]
        for number, text in enumerate(texts)
    ]
    stream = list(chain.from_iterable(joined))
    owner = [number for number, text in enumerate(joined) for _ in text]
    starts = range(0, len(stream) - tokens + 1, tokens)
    found = [_passage(stream[start : start + tokens], 1) for start in starts]
    return found, [owner[start] for start in starts], len(stream) - tokens * len(found)


def _pack(probe_set: ProbeSet, texts: dict[int, list[int]], refused: dict[int, str], end: int | None) -> Cut:
    """Pack the texts of each level by themselves, so that a passage is of one level."""
    passages, levels = probe_set.passages, probe_set.levels or ("",) * len(probe_set.examples)
    assert passages is not None
    encoded: list[Encoded] = []
    text: list[int] = []
    left_out = shortened = total = 0
    for level in dict.fromkeys(levels):
        numbers = [number for number in texts if levels[number] == level]
        found, begins, rest = pack_passages([texts[number] for number in numbers], passages.tokens, end)
        if not found:
            reason = f"its level's texts have {rest:,} tokens together, and a passage has {passages.tokens:,}"
            refused |= dict.fromkeys(numbers, reason)
            continue
        encoded += found
        text += [numbers[place] for place in begins]
        total += passages.tokens * len(found) + rest
        left_out += rest
        while rest > 0:  # the last texts, whose end is in no passage
            shortened += 1
            rest -= len(texts[numbers.pop()])
    return Cut(passages, encoded, text, refused, total, left_out, shortened)


def _tokenize(texts: Sequence[str], tokenizer: Tokenizer) -> tuple[dict[int, list[int]], dict[int, str]]:
    """Return the tokens of each text by its number, and of those that have none the reason."""
    found: dict[int, list[int]] = {}
    refused: dict[int, str] = {}
    for number, text in enumerate(texts):
        try:
            found[number] = tokenize_text(text, tokenizer)
        except (UserError, ValueError) as error:
            refused[number] = str(error)
    return found, refused


def _passage(ids: Sequence[int], first: int) -> Encoded:
    """Return a passage that is fed whole and of which the tokens from ``first`` on are predicted."""
    return Encoded(tuple(ids), tuple(range(first - 1, len(ids) - 1)), tuple(ids[first:]), 0)
