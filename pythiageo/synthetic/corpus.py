"""Running text for the natural twin: the reference topics and docstrings of Python's library, or a user's files."""

from __future__ import annotations

import ast
import hashlib
import importlib
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path

import numpy as np

from pythiageo.errors import UserError
from pythiageo.probes import tokenizer
from pythiageo.untrusted_files import BadFileError, open_plain

HELD_OUT_SHARE = 20
"""One document in so many is held out."""

_NOT_ENGLISH = {
    "test",
    "tests",
    "site-packages",
    "dist-packages",
    "lib2to3",
    "ensurepip",
    "idlelib",
    "__pycache__",
}


@dataclass(frozen=True)
class Corpus:
    """Normalised text as ids, documents ended by ``[EOS]``; ``sha256`` is over the normalised documents."""

    source: str
    documents: int
    sha256: str
    train: np.ndarray
    held_out: np.ndarray

    def summary(self) -> dict[str, str | int]:
        """Return what the manifest says of it."""
        return {
            "source": self.source,
            "documents": self.documents,
            "sha256": self.sha256,
            "train_tokens": len(self.train),
            "held_out_tokens": len(self.held_out),
        }


def load_corpus(files: list[Path], context: int) -> Corpus:
    """Return the corpus of ``files``, one document each paragraph; of Python's library when there are none.

    The library's text differs between Python versions: the hash says which one it was. Documents are held out by
    their hash, so a document stays on its side whatever else the corpus holds.

    Raises:
        UserError: a file cannot be read as UTF-8 text, or there is too little text for windows of ``context``.
    """
    if files:
        source = ", ".join(path.name for path in files)
        texts = list(_read_paragraphs(files))
    else:
        source = f"Python {sysconfig.get_python_version()} standard library: reference topics and docstrings"
        texts = [*_read_topics(), *_read_docstrings(Path(sysconfig.get_paths()["stdlib"]))]
    documents = list(dict.fromkeys(filter(None, map(tokenizer.normalise, texts))))
    train: list[int] = []
    held_out: list[int] = []
    for document in documents:
        digest = hashlib.sha256(document.encode()).digest()
        side = held_out if int.from_bytes(digest[:8], "big") % HELD_OUT_SHARE == 0 else train
        side.extend([*tokenizer.encode(document), tokenizer.EOS])
    if min(len(train), len(held_out)) < 20 * context:
        raise UserError(
            f"corpus {source}: {len(documents)} documents with {len(train)} training and {len(held_out)} held-out "
            f"characters are too few; expected at least {20 * context} of each, in paragraphs divided by empty lines"
        )
    sha = hashlib.sha256("\n".join(documents).encode()).hexdigest()
    return Corpus(source, len(documents), sha, np.array(train, dtype=np.uint8), np.array(held_out, dtype=np.uint8))


def _read_paragraphs(files: list[Path]) -> Iterator[str]:
    for path in files:
        try:
            with open_plain(path) as file:
                text = TextIOWrapper(file, encoding="utf-8").read()
        except (OSError, UnicodeDecodeError, BadFileError) as error:
            raise UserError(f"corpus file {path}: cannot be read as UTF-8 text: {error}") from None
        yield from text.split("\n\n")


def _read_topics() -> Iterator[str]:
    topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    for name in sorted(topics):
        yield from topics[name].split("\n\n")


def _read_docstrings(library: Path) -> Iterator[str]:
    """Yield the docstrings of every module that parses, without importing any."""
    for path in sorted(library.rglob("*.py")):
        if _NOT_ENGLISH & set(path.relative_to(library).parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # templates that are no Python; the hash tells what was read
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(node)
                if docstring:
                    yield from docstring.split("\n\n")
