"""From an example's text to token ids, and the positions that count.

One rule for every tokenizer: the text is tokenized whole, with the special tokens the tokenizer itself adds. The
answer's tokens are those that hold a character of the answer, and a special token that the tokenizer puts at the end.
A token may hold the white space before the answer too (byte-pair tokenizers join them); one that holds the prompt's
visible end and white space of the answer is the prompt's. A position's logits predict the next token, so the answer
positions are the answer tokens' predecessors. The last token is never fed to the model: nothing is predicted from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pythiageo.errors import UserError, quote_error
from pythiageo.probes import tokenizer as characters
from pythiageo.probes.kinds import EXACT, NEXT_TOKEN, TEXT
from pythiageo.probes.probeset import Example, ProbeSet
from pythiageo.untrusted_files import TOKENIZER_LIMIT, BadFileError, check_plain, is_plain


@dataclass(frozen=True)
class Encoded:
    """One example as the model sees it.

    ``ids`` (position): what is fed. ``answer_positions``: ascending positions whose logits predict ``targets``.
    ``equals_position``: of the prompt's last token that is not white space (``=`` in the algorithmic tasks); running
    text has its first token for a prompt.
    """

    ids: tuple[int, ...]
    answer_positions: tuple[int, ...]
    targets: tuple[int, ...]
    equals_position: int


@runtime_checkable
class Tokenizer(Protocol):
    """Turns a text into ids, each token's first character (``None`` for special tokens), and token names.

    ``end``: the token that ends a text in training data, ``None`` where none is named.
    """

    end: int | None

    def tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int] | None]]:
        """Return ids and the (start, end) characters of each token, ``None`` for an added special token."""

    def show(self, token: int) -> str:
        """Return a token as people read it."""


class CharacterTokenizer:
    """The synthetic models' own tokenizer, without any library."""

    end: int | None = characters.EOS

    def tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int] | None]]:
        """Return ``[BOS] text [EOS]``, one token a character."""
        ids = [characters.BOS, *characters.encode(text), characters.EOS]
        return ids, [None, *((i, i + 1) for i in range(len(text))), None]

    def show(self, token: int) -> str:
        """Return a token as people read it."""
        return characters.decode([token])


class FileTokenizer:
    """Any checkpoint's tokenizer: that of a ``tokenizer.json``, or of a folder that has one.

    A folder's is what transformers makes of it: ``tokenizer_config.json`` and the model's kind change what a
    ``tokenizer.json`` alone would do (a space before the text, tokens around it), and a model is fed accordingly.

    Raises:
        UserError: there is none, or it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        file = path if is_plain(path) else path / "tokenizer.json"
        if not is_plain(file):
            raise UserError(f"{path}: expected a tokenizer.json beside the weights (or name one with --tokenizer)")
        try:
            check_plain(file, TOKENIZER_LIMIT)
        except BadFileError as error:
            raise UserError(f"{file} {error}") from None
        alone = is_plain(path) or not any(is_plain(path / name) for name in ("tokenizer_config.json", "config.json"))
        self.kind = "tokenizer.json"
        """What reads it: the file itself, or a class of transformers."""
        self.unlike_file = 0
        """How many of the texts so far the file alone would have read as other ids."""
        import tokenizers  # noqa: PLC0415 - `tasks list` does without it

        self._tokenizer: Any = None
        self.end: int | None = None
        """The token that ends a text in training data, as the folder's tokenizer names it."""
        try:
            self._file = tokenizers.Tokenizer.from_file(str(file))
            if alone:
                self._tokenizer = self._file
            else:
                from transformers import AutoTokenizer  # noqa: PLC0415 - takes seconds

                made = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
                self._tokenizer, self.kind = getattr(made, "backend_tokenizer", None), type(made).__name__
                self.end = made.eos_token_id
        except Exception as error:  # the libraries raise bare Exception on a malformed file
            raise UserError(f"{file}: not a tokenizer: {quote_error(error)}") from None
        if self._tokenizer is None:
            raise UserError(f"{path}: a {self.kind} does not say which characters a token holds: expected a fast one")
        for one in (self._tokenizer, self._file):
            one.no_truncation()
            one.no_padding()
        self._unknown = getattr(self._tokenizer.model, "unk_token", None)

    @property
    def around(self) -> tuple[str, ...]:
        """The special tokens that are put around every text, in their order."""
        encoding = self._tokenizer.encode("", add_special_tokens=True)
        return tuple(
            token for token, special in zip(encoding.tokens, encoding.special_tokens_mask, strict=True) if special
        )

    def tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int] | None]]:
        """Return the ids of ``text`` with the special tokens this tokenizer adds.

        Raises:
            ValueError: a part of the text is not in the vocabulary: its place would be taken by one and the same
                token, and a number made of that would say nothing.
        """
        encoding = self._tokenizer.encode(text, add_special_tokens=True)
        if self._file is not self._tokenizer:
            self.unlike_file += self._file.encode(text, add_special_tokens=True).ids != encoding.ids
        spans = [
            None if special else (int(start), int(end))
            for special, (start, end) in zip(encoding.special_tokens_mask, encoding.offsets, strict=True)
        ]
        if self._unknown is not None:
            for token, span in zip(encoding.tokens, spans, strict=True):
                if token == self._unknown and span is not None and text[slice(*span)] != token:
                    raise ValueError(f"{text[slice(*span)]!r} is not in the tokenizer's vocabulary, in {text!r}")
        return list(encoding.ids), spans

    def show(self, token: int) -> str:
        """Return a token as people read it."""
        return str(self._tokenizer.decode([token], skip_special_tokens=False))


def encode_example(example: Example, tokenizer: Tokenizer, rule: str = EXACT) -> Encoded:
    """Tokenize one example, its right answer fed, and find its answer positions.

    Raises:
        UserError: a token holds a visible end of the prompt and a visible start of the answer, the prompt or the answer
            is blank, or a running text has less than two tokens.
    """
    if rule == TEXT:
        return _encode_text(example.answer, tokenizer)
    whole = _encode(example.prompt, example.answer, tokenizer)
    if rule != NEXT_TOKEN:
        return whole
    first = whole.answer_positions[0]
    return Encoded(whole.ids[: first + 1], (first,), whole.targets[:1], whole.equals_position)


class UnequalPromptError(UserError):
    """Continuations that are to be compared do not follow one and the same tokens."""


def encode_wrong(example: Example, right: Encoded, tokenizer: Tokenizer, spaces: bool = False) -> list[Encoded]:
    """Tokenize each wrong continuation of an example with its prompt; ``spaces`` as for ``right``.

    Raises:
        UserError: as ``encode_example``.
        UnequalPromptError: the prompt's own tokens are others than before the right answer, so that the
            log-probabilities would be of different things.
    """
    wrong = [_encode(example.prompt, text, tokenizer, spaces) for text in example.wrong]
    shared = right.ids[: right.answer_positions[0] + 1]
    for text, encoded in zip(example.wrong, wrong, strict=True):
        if encoded.ids[: encoded.answer_positions[0] + 1] != shared:
            raise UnequalPromptError(
                f"the prompt {example.prompt!r} is tokenized in one way before {example.answer!r} and in another "
                f"before {text!r}: end the prompt with a space"
            )
    return wrong


def encode_compared(example: Example, tokenizer: Tokenizer, rule: str) -> tuple[Encoded, list[Encoded]]:
    """Tokenize an example for its scores: the right answer, and each wrong continuation.

    Where the white space before the answer is a part of the first token of some continuations and a token of its own
    before others, it is scored with each of them, as lm-evaluation-harness does always: what differs is then scored,
    and what is fed before it is the same.

    Raises:
        UserError: as ``encode_example`` and ``encode_wrong``.
    """
    right = encode_example(example, tokenizer, rule)
    try:
        return right, encode_wrong(example, right, tokenizer)
    except UnequalPromptError:
        right = _encode(example.prompt, example.answer, tokenizer, spaces=True)
        return right, encode_wrong(example, right, tokenizer, spaces=True)


def tokenize_text(text: str, tokenizer: Tokenizer) -> list[int]:
    """Return the tokens of a running text.

    Raises:
        UserError: it has less than two.
        ValueError: as ``tokenize``.
    """
    ids, _ = tokenizer.tokenize(text)
    if len(ids) < 2:
        raise UserError(f"expected running text of at least two tokens, got {text!r}")
    return ids


def _encode_text(text: str, tokenizer: Tokenizer) -> Encoded:
    ids = tokenize_text(text, tokenizer)
    return Encoded(tuple(ids[:-1]), tuple(range(len(ids) - 1)), tuple(ids[1:]), 0)


def _encode(prompt: str, answer: str, tokenizer: Tokenizer, spaces: bool = False) -> Encoded:
    """Tokenize prompt and answer; ``spaces``: tokens of the white space before the answer are the answer's too."""
    visible = len(prompt.rstrip())
    boundary = visible if spaces else len(prompt)
    text = prompt + answer
    begins = len(text) - len(answer.lstrip())
    ids, spans = tokenizer.tokenize(text)
    answer_tokens: list[int] = []
    prompt_tokens: list[int] = []
    for index, span in enumerate(spans):
        if span is None:
            if answer_tokens and index == len(spans) - 1:
                answer_tokens.append(index)
            continue
        start, end = span
        if start < visible and end > begins:
            raise UserError(
                f"the token {tokenizer.show(ids[index])!r} holds the end of the prompt and the start of the answer "
                f"in {text!r}: end the prompt with a space"
            )
        if start < visible:
            prompt_tokens.append(index)
        elif end > boundary:
            answer_tokens.append(index)
    if not answer_tokens or not prompt_tokens:
        raise UserError(f"expected a prompt and an answer, each with a visible character, in {text!r}")
    return Encoded(
        ids=tuple(ids[:-1]),
        answer_positions=tuple(index - 1 for index in answer_tokens),
        targets=tuple(ids[index] for index in answer_tokens),
        equals_position=prompt_tokens[-1],
    )


def encode_probe_set(probe_set: ProbeSet, tokenizer: Tokenizer) -> list[Encoded]:
    """Tokenize every example of a probe set, the right answers fed."""
    return [encode_example(example, tokenizer, probe_set.rule) for example in probe_set.examples]


def longest(encoded: Sequence[Encoded]) -> int:
    """Return the greatest number of positions fed for one example."""
    return max(len(example.ids) for example in encoded)
