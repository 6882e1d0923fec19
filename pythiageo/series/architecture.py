"""The one place where a model's class and settings come from: the shapes of a ``config.json``, and nothing else of it.

What transformers takes from a config reaches further: code of the repository, quantised weights, other files, attention
and expert kernels that the ``kernels`` package fetches from the Hub by name. None of that is taken.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from pythiageo.errors import CheckpointError
from pythiageo.series.files.limits import check_counts
from pythiageo.series.files.tensor_files import read_json
from pythiageo.series.kinds import KindError, check_kind, describe_layout, names_in
from pythiageo.untrusted_files import is_plain

ATTENTION = "eager"
"""The implementation that every model is built with: plain operations, and what TransformerLens takes."""
_REFUSED = {"auto_map", "quantization_config", "compression_config", "configuration_files"}
"""Without what these ask for, it would be another model: see ``kinds``."""
_DROPPED = {
    "attn_implementation",
    "experts_implementation",
    "use_kernels",
    "kernel_config",
    "fusion_config",
    "distributed_config",
    "transformers_weights",
    "gguf_file",
    "name_or_path",
    "trust_remote_code",
    "code_revision",
}
"""These choose how the same model is computed, stored or found; so does whatever begins with an underscore."""
_NUMBER = "__float__"
"""The one key of transformers' own that begins so and is a value: infinity, which JSON has no word for."""


def read_config(folder: Path, label: str) -> dict[str, Any]:
    """Return what a checkpoint's ``config.json`` says of the model's shape, at every depth.

    Raises:
        CheckpointError: as ``read_whole_config``, or one that asks for more layers than any model has.
    """
    config = read_whole_config(folder, label)
    check_counts(config, label)
    return {key: _shapes(value) for key, value in config.items() if _is_shape(key)}


def read_whole_config(folder: Path, label: str) -> dict[str, Any]:
    """Return a checkpoint's ``config.json``, if it is of a kind that is measured.

    Raises:
        CheckpointError: none, damaged, of no architecture; a ``kinds.KindError`` where no such model is measured.
    """
    if not is_plain(folder / "config.json") and (foreign := describe_layout(names_in(folder))):
        raise KindError(f"{label}: {foreign}")
    config = read_json(folder / "config.json", label)
    if not isinstance(config.get("model_type"), str):
        raise CheckpointError(f"{label}: config.json names no model_type")
    check_kind(config, label)
    return config


def settings_of(config: dict[str, Any]) -> Any:
    """Return the settings from which transformers builds the model of ``read_config``.

    Raises:
        KeyError: not a causal language model that transformers knows.
        Exception: what transformers raises on values that do not fit, which is of many kinds.
    """
    from transformers import AutoConfig  # noqa: PLC0415 - takes seconds

    with quiet_transformers(), TemporaryDirectory(prefix="pythiageo-config-") as alone:
        (Path(alone) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        settings = AutoConfig.from_pretrained(alone, local_files_only=True, trust_remote_code=False)
    settings._attn_implementation = ATTENTION
    settings.name_or_path = ""
    return settings


def model_class(settings: Any) -> Any:
    """Return the class of the causal language model with these settings. Raises ``KeyError`` where there is none."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING  # noqa: PLC0415

    return MODEL_FOR_CAUSAL_LM_MAPPING[type(settings)]


def build(settings: Any) -> nn.Module:
    """Return the model of ``settings_of`` with random weights. Raises as ``settings_of``."""
    with quiet_transformers():
        model: nn.Module = model_class(settings)(settings)
    return model


def read_tokenizer(folder: Path | None) -> Any:
    """Return transformers' tokenizer of a folder, without code of its own. Raises what transformers does."""
    from transformers import AutoTokenizer  # noqa: PLC0415

    with quiet_transformers():
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def context_of(settings: Any) -> int | None:
    """Return the greatest number of positions that a model with these settings takes; ``None`` where there is none."""
    count = getattr(settings, "max_position_embeddings", None)
    return count if isinstance(count, int) and count > 0 else None


def _shapes(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shapes(inner) for key, inner in value.items() if _is_shape(key)}
    return [_shapes(inner) for inner in value] if isinstance(value, list) else value


def _is_shape(key: str) -> bool:
    return key == _NUMBER or (not key.startswith("_") and key not in _DROPPED and key not in _REFUSED)


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
