"""Opening a checkpoint folder with plain transformers: raw weights, float32, no remote code, no pickle."""

from __future__ import annotations

import copy
import re
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pythiageo.errors import CheckpointError, quote_error, raise_if_memory
from pythiageo.series.architecture import (
    ATTENTION,
    build,
    model_class,
    quiet_transformers,
    read_config,
    read_whole_config,
    settings_of,
)
from pythiageo.series.causality import check_causal
from pythiageo.series.checkpoint import OpenCheckpoint
from pythiageo.series.files.fingerprint import combine, describe_nonfinite
from pythiageo.series.files.limits import check_folder, check_room
from pythiageo.series.files.tensor_files import BIN, SAFETENSORS, StoredTensor, Widened, stored_tensors
from pythiageo.series.kinds import describe_own_code
from pythiageo.untrusted_files import is_plain

_BUFFERS = re.compile(r"(.+\.)?(masked_bias|inv_freq|position_ids)")
_CAUSAL_MASK = re.compile(r"(.+\.)?(attn|attention|self_attn|self_attention)\.bias")
"""Constants that older releases of transformers saved with the weights; a model makes them from its config. A causal
mask is told by its shape too, (1, 1, n, n), as a projection may have a bias of such a name."""


def open_folder(folder: Path, label: str, device: str = "cpu") -> OpenCheckpoint:
    """Load the checkpoint in ``folder``, which ``label`` names in errors, onto a device.

    Tensor by tensor: each is read once, fingerprinted as stored, and put into the model in float32, so that memory
    holds the float32 weights and little else. On a GPU these are there alone, and half precision is copied as stored
    and widened there. The fingerprint is over the tensors as stored, so a copy elsewhere, in another format too, has
    the same one. Weights that hold NaN are loaded and told by ``nonfinite``.

    Raises:
        CheckpointError: no checkpoint, remote code, damaged or missing files, sizes that cannot be, weights that do not
            fit the config; a model that sees later tokens (status ``not-causal``).
        MachineError: memory runs out.
    """
    check_folder(folder, label)
    config = read_config(folder, label)
    stored = stored_tensors(folder, label)
    model = _build(folder, label, config, stored, device)
    facts = [tensor.facts for tensor in stored.values()]
    nonfinite = describe_nonfinite(facts)
    if nonfinite is None:
        check_causal(model, label)
    return OpenCheckpoint(
        model=model,
        weight_sha=combine(facts),
        architecture=type(model).__name__,
        tokenizer_folder=folder,
        nonfinite=nonfinite,
        note=describe_own_code(read_whole_config(folder, label)),
    )


def is_checkpoint(folder: Path) -> bool:
    """Return whether ``folder`` holds a config and weights."""
    names = (SAFETENSORS, f"{SAFETENSORS}.index.json", BIN, f"{BIN}.index.json")
    return is_plain(folder / "config.json") and any(is_plain(folder / name) for name in names)


def _build(
    folder: Path, label: str, config: dict[str, Any], stored: dict[str, StoredTensor], device: str
) -> torch.nn.Module:
    try:
        settings = settings_of(config)
        with quiet_transformers():
            check_room(partial(build, copy.deepcopy(settings)), stored, label)
            model, report = model_class(settings).from_pretrained(
                None,
                config=settings,
                state_dict={name: Widened(tensor, device) for name, tensor in stored.items()},
                dtype=torch.float32,
                device_map=None if device == "cpu" else {"": device},
                attn_implementation=ATTENTION,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are reported, and refused below in our own words
            )
    except CheckpointError:
        raise
    except Exception as error:  # transformers raises many kinds on a config that does not fit
        raise_if_memory(error, f"{label} was opened")
        message = f"{label}: transformers cannot open this {config['model_type']} checkpoint: {quote_error(error)}"
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
