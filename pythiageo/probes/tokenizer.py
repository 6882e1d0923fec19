"""The character tokenizer of the synthetic models: 41 tokens, one character each.

``[PAD] [BOS] [EOS]``, space, ``=``, ten digits, 26 capital letters. It is written into every saved checkpoint as a
``tokenizer.json``, so that anything that reads tokenizers reads these models; the two agree token by token.
"""

from __future__ import annotations

import json
import re
import string
import unicodedata
from pathlib import Path

PAD, BOS, EOS = 0, 1, 2
SPECIAL_TOKENS = ("[PAD]", "[BOS]", "[EOS]")
CHARACTERS = " =" + string.digits + string.ascii_uppercase
VOCABULARY: dict[str, int] = {token: i for i, token in enumerate((*SPECIAL_TOKENS, *CHARACTERS))}
VOCAB_SIZE = len(VOCABULARY)

_OUTSIDE = re.compile(f"[^{re.escape(CHARACTERS)}]+")
_SPACES = re.compile(" +")


def encode(text: str) -> list[int]:
    """Return the token ids of ``text``, without ``[BOS]`` and ``[EOS]``.

    Raises:
        ValueError: a character outside the vocabulary (see ``normalise``).
    """
    try:
        return [VOCABULARY[character] for character in text]
    except KeyError as error:
        raise ValueError(f"character {error.args[0]!r} is not among the 41 tokens, in {text!r}") from None


def decode(ids: list[int]) -> str:
    """Return the text of ``ids``; special tokens appear by name."""
    names = list(VOCABULARY)
    return "".join(names[i] for i in ids)


def normalise(text: str) -> str:
    """Upper-case, strip accents, turn every other character into a space, and join runs of spaces.

    Idempotent; the result can be encoded.
    """
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(c for c in plain if not unicodedata.combining(c)).upper()
    return _SPACES.sub(" ", _OUTSIDE.sub(" ", plain)).strip()


def save(folder: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json``, which wrap a text as ``[BOS] text [EOS]``."""
    # tokenizers takes 50 ms to import and is needed only where a checkpoint is saved
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors  # noqa: PLC0415

    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token=SPECIAL_TOKENS[PAD]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", BOS), ("[EOS]", EOS)]
    )
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "[BOS]",
        "eos_token": "[EOS]",
        "pad_token": "[PAD]",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
