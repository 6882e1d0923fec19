"""Opening a checkpoint folder with plain transformers: raw weights, float32, no remote code, no pickle."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pythiageo.errors import CheckpointError, first_line
from pythiageo.series.checkpoint import OpenCheckpoint
from pythiageo.series.files.fingerprint import combine, describe_nonfinite
from pythiageo.series.files.tensor_files import BIN, SAFETENSORS, StoredTensor, read_json, stored_tensors

_BUFFERS = re.compile(r"(.+\.)?(masked_bias|inv_freq|position_ids)")
_CAUSAL_MASK = re.compile(r"(.+\.)?(attn|attention|self_attn|self_attention)\.bias")
"""Constants that older releases of transformers saved with the weights; a model makes them from its config. A causal
mask is told by its shape too, (1, 1, n, n), as a projection may have a bias of such a name."""


def open_folder(folder: Path, label: str) -> OpenCheckpoint:
    """Load the checkpoint in ``folder``, which ``label`` names in errors.

    Tensor by tensor: each is read once, fingerprinted as stored, and copied into the model in float32, so that memory
    holds the float32 weights and little else. The fingerprint is over the tensors as stored, so a copy elsewhere, in
    another format too, has the same one. Weights that hold NaN are loaded and told by ``nonfinite``.

    Raises:
        CheckpointError: no checkpoint, remote code, damaged or missing files, weights that do not fit the config.
    """
    config = read_config(folder, label)
    stored = stored_tensors(folder, label)
    model = _build(folder, label, config, stored)
    facts = [tensor.facts for tensor in stored.values()]
    return OpenCheckpoint(
        model=model,
        weight_sha=combine(facts),
        architecture=type(model).__name__,
        tokenizer_folder=folder,
        nonfinite=describe_nonfinite(facts),
    )


def is_checkpoint(folder: Path) -> bool:
    """Return whether ``folder`` holds a config and weights."""
    names = (SAFETENSORS, f"{SAFETENSORS}.index.json", BIN, f"{BIN}.index.json")
    return (folder / "config.json").is_file() and any((folder / name).is_file() for name in names)


def read_config(folder: Path, label: str) -> dict[str, Any]:
    """Return a checkpoint's config.

    Raises:
        CheckpointError: none, damaged, of no architecture, or one that asks for remote code.
    """
    config = read_json(folder / "config.json", label)
    if "auto_map" in config:
        raise CheckpointError(f"{label}: its config asks for code from the repository, which is never run")
    if not isinstance(config.get("model_type"), str):
        raise CheckpointError(f"{label}: config.json names no model_type")
    return config


def _build(folder: Path, label: str, config: dict[str, Any], stored: dict[str, StoredTensor]) -> torch.nn.Module:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig  # noqa: PLC0415 - takes seconds

    try:
        with quiet_transformers():
            settings = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model, report = MODEL_FOR_CAUSAL_LM_MAPPING[type(settings)].from_pretrained(
                None,
                config=settings,
                state_dict=stored,
                dtype=torch.float32,
                attn_implementation="eager",
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are reported, and refused below in our own words
            )
    except Exception as error:  # transformers raises many kinds on a config that does not fit
        message = f"{label}: transformers cannot open this {config['model_type']} checkpoint: {first_line(error)}"
        raise CheckpointError(message) from None
    _check_fit(report, stored, label)
    return model.eval().requires_grad_(False)


def _check_fit(report: dict[str, Any], stored: dict[str, StoredTensor], label: str) -> None:
    """Refuse weights that are not exactly the config's model.

    transformers would fill what is missing at random and drop what it has no place for, such as the upper blocks where
    the config says fewer, and go on.
    """
    for kind, words in (
        ("missing_keys", "the weights lack"),
        ("mismatched_keys", "the weights have another shape than the config says for"),
        ("unexpected_keys", "the config's model has no place for"),
    ):
        names = sorted(str(name[0] if isinstance(name, tuple) else name) for name in report[kind])
        if kind == "unexpected_keys":
            names = [name for name in names if not _is_constant(name, stored)]
        if names:
            raise CheckpointError(f"{label}: {words} {names[0]} ({len(names)} in all)")


def _is_constant(name: str, stored: dict[str, StoredTensor]) -> bool:
    if _CAUSAL_MASK.fullmatch(name) and name in stored:
        shape = stored[name][...].shape
        return len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]
    return _BUFFERS.fullmatch(name) is not None


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' bars and notes off the terminal while loading, and its background conversion off the Hub."""
    from transformers.utils import logging  # noqa: PLC0415

    before = logging.get_verbosity(), os.environ.get("DISABLE_SAFETENSORS_CONVERSION")
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
    try:
        yield
    finally:
        logging.set_verbosity(before[0])
        if bars:
            logging.enable_progress_bar()
        if before[1] is None:
            del os.environ["DISABLE_SAFETENSORS_CONVERSION"]
        else:
            os.environ["DISABLE_SAFETENSORS_CONVERSION"] = before[1]
