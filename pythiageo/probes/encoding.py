"""From an example's text to token ids, and the positions that count.

One rule for every tokenizer: the text is tokenized whole, with the special tokens the tokenizer itself adds. The
answer's tokens are those that hold a character of the answer, and a special token that the tokenizer puts at the end.
A token may hold the white space before the answer too (byte-pair tokenizers join them). A position's logits predict
the next token, so the answer positions are the answer tokens' predecessors. The last token is never fed to the model:
nothing is predicted from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from pythiageo.errors import UserError
from pythiageo.probes import tokenizer as characters
from pythiageo.probes.probeset import Example, ProbeSet


@dataclass(frozen=True)
class Encoded:
    """One example as the model sees it.

    ``ids`` (position): what is fed. ``answer_positions``: ascending positions whose logits predict ``targets``.
    ``equals_position``: of the prompt's last token that is not white space (``=`` in the algorithmic tasks).
    """

    ids: tuple[int, ...]
    answer_positions: tuple[int, ...]
    targets: tuple[int, ...]
    equals_position: int


@runtime_checkable
class Tokenizer(Protocol):
    """Turns a text into ids, each token's first character (``None`` for special tokens), and token names."""

    def tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int] | None]]:
        """Return ids and the (start, end) characters of each token, ``None`` for an added special token."""

    def show(self, token: int) -> str:
        """Return a token as people read it."""


class CharacterTokenizer:
    """The synthetic models' own tokenizer, without any library."""

    def tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int] | None]]:
        """Return ``[BOS] text [EOS]``, one token a character."""
        ids = [characters.BOS, *characters.encode(text), characters.EOS]
        return ids, [None, *((i, i + 1) for i in range(len(text))), None]

    def show(self, token: int) -> str:
        """Return a token as people read it."""
        return characters.decode([token])


class FileTokenizer:
    """Any checkpoint's ``tokenizer.json``.

    Raises:
        UserError: there is none in ``folder``, or it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        import tokenizers  # noqa: PLC0415 - `tasks list` does without it

        file = folder / "tokenizer.json"
        if not file.is_file():
            raise UserError(f"{folder}: expected a tokenizer.json beside the weights")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception on a malformed file
            raise UserError(f"{file}: not a tokenizer: {error}") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int] | None]]:
        """Return the ids of ``text`` with the special tokens this tokenizer adds."""
        encoding = self._tokenizer.encode(text, add_special_tokens=True)
        spans = [
            None if special else (int(start), int(end))
            for special, (start, end) in zip(encoding.special_tokens_mask, encoding.offsets, strict=True)
        ]
        return list(encoding.ids), spans

    def show(self, token: int) -> str:
        """Return a token as people read it."""
        return str(self._tokenizer.decode([token], skip_special_tokens=False))


def encode_example(example: Example, tokenizer: Tokenizer) -> Encoded:
    """Tokenize one example and find its answer positions.

    Raises:
        UserError: a token holds a visible end of the prompt and the start of the answer, or the prompt is blank.
    """
    visible = len(example.prompt.rstrip())
    boundary = len(example.prompt)
    text = example.prompt + example.answer
    ids, spans = tokenizer.tokenize(text)
    answer_tokens: list[int] = []
    prompt_tokens: list[int] = []
    for index, span in enumerate(spans):
        if span is None:
            if answer_tokens and index == len(spans) - 1:
                answer_tokens.append(index)
            continue
        start, end = span
        if start < visible and end > boundary:
            raise UserError(
                f"the token {tokenizer.show(ids[index])!r} holds the end of the prompt and the start of the answer "
                f"in {text!r}: end the prompt with a space"
            )
        if end > boundary:
            answer_tokens.append(index)
        elif start < visible:
            prompt_tokens.append(index)
    if not answer_tokens or not prompt_tokens:
        raise UserError(f"expected a prompt and an answer, each with a visible character, in {text!r}")
    return Encoded(
        ids=tuple(ids[:-1]),
        answer_positions=tuple(index - 1 for index in answer_tokens),
        targets=tuple(ids[index] for index in answer_tokens),
        equals_position=prompt_tokens[-1],
    )


def encode_probe_set(probe_set: ProbeSet, tokenizer: Tokenizer) -> list[Encoded]:
    """Tokenize every example of a probe set."""
    return [encode_example(example, tokenizer) for example in probe_set.examples]


def longest(encoded: Sequence[Encoded]) -> int:
    """Return the greatest number of positions fed for one example."""
    return max(len(example.ids) for example in encoded)
