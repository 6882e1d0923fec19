"""Opening a checkpoint folder with plain transformers: raw weights, float32, no remote code, no pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pythiageo.errors import CheckpointError
from pythiageo.series.checkpoint import OpenCheckpoint
from pythiageo.series.weights import find_nonfinite, fingerprint

SAFETENSORS, BIN = "model.safetensors", "pytorch_model.bin"
_CONFIG_LIMIT = 16 * 2**20


def open_folder(folder: Path, label: str) -> OpenCheckpoint:
    """Load the checkpoint in ``folder``, which ``label`` names in errors.

    The fingerprint is over the tensors as stored, so a copy elsewhere, in another format too, has the same one.
    Weights that hold NaN are loaded and told by ``nonfinite``.

    Raises:
        CheckpointError: no checkpoint, remote code, damaged or missing files, weights that do not fit the config.
    """
    config = _read_config(folder, label)
    stored = read_tensors(weight_files(folder, label), label)
    model = _build(folder, label, config)
    return OpenCheckpoint(
        model=model,
        weight_sha=fingerprint(stored),
        architecture=type(model).__name__,
        tokenizer_folder=folder,
        nonfinite=find_nonfinite(stored),
    )


def is_checkpoint(folder: Path) -> bool:
    """Return whether ``folder`` holds a config and weights."""
    names = (SAFETENSORS, f"{SAFETENSORS}.index.json", BIN, f"{BIN}.index.json")
    return (folder / "config.json").is_file() and any((folder / name).is_file() for name in names)


def _read_config(folder: Path, label: str) -> dict[str, Any]:
    config = _read_json(folder / "config.json", label)
    if "auto_map" in config:
        raise CheckpointError(f"{label}: its config asks for code from the repository, which is never run")
    if not isinstance(config.get("model_type"), str):
        raise CheckpointError(f"{label}: config.json names no model_type")
    return config


def _read_json(path: Path, label: str) -> dict[str, Any]:
    try:
        if path.stat().st_size > _CONFIG_LIMIT:
            raise CheckpointError(f"{label}: {path.name} is too large to be what its name says")
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{label}: not a checkpoint: expected a {path.name} and weights") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{label}: {path.name} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{label}: {path.name} must hold a JSON object")
    return value


def weight_files(folder: Path, label: str, names: Sequence[str] = (SAFETENSORS, BIN)) -> list[Path]:
    """Return the files that hold the weights: safetensors where there are any, else ``.bin``; whole before sharded.

    ``names`` restricts them to a format.

    Raises:
        CheckpointError: none, a shard that the index names and is not there, or an index that leaves the folder.
    """
    for name in names:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            weight_map = _read_json(index, label).get("weight_map")
            if not isinstance(weight_map, dict) or not weight_map:
                raise CheckpointError(f"{label}: {index.name} names no weights")
            shards = sorted({str(shard) for shard in weight_map.values()})
            for shard in shards:
                if Path(shard).name != shard or shard in {"", ".", ".."}:
                    raise CheckpointError(f"{label}: {index.name} names a file outside the checkpoint: {shard!r}")
                if not (folder / shard).is_file():
                    raise CheckpointError(f"{label}: the shard {shard} that {index.name} names is missing")
            return [folder / shard for shard in shards]
    raise CheckpointError(f"{label}: not a checkpoint: expected {' or '.join(names)}, whole or with an index")


def read_tensors(files: Iterable[Path], label: str) -> dict[str, Tensor]:
    """Return the tensors of all ``files`` as stored, by name.

    Raises:
        CheckpointError: a file that is damaged or holds anything but tensors; nothing in it is ever run.
    """
    tensors: dict[str, Tensor] = {}
    for path in files:
        try:
            if path.suffix == ".safetensors":
                with safe_open(path, framework="pt") as file:
                    part = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            else:
                part = torch.load(path, map_location="cpu", weights_only=True)
        except (SafetensorError, OSError, ValueError, RuntimeError, EOFError) as error:
            raise CheckpointError(f"{label}: {path.name} is damaged or cut short: {_first_line(error)}") from None
        except Exception as error:  # weights_only=True refuses with pickle's own errors
            raise CheckpointError(f"{label}: {path.name} is not a plain tensor file: {_first_line(error)}") from None
        if not isinstance(part, dict) or not all(isinstance(tensor, Tensor) for tensor in part.values()):
            raise CheckpointError(f"{label}: {path.name} holds something else than tensors")
        tensors |= part
    return tensors


def _build(folder: Path, label: str, config: dict[str, Any]) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - takes seconds

    try:
        with _quiet():
            model, report = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=torch.float32,
                attn_implementation="eager",
                trust_remote_code=False,
                local_files_only=True,
                use_safetensors=weight_files(folder, label)[0].suffix == ".safetensors",
                weights_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are reported, and refused below in our own words
            )
    except CheckpointError:
        raise
    except Exception as error:  # transformers raises many kinds on a config that does not fit
        message = f"{label}: transformers cannot open this {config['model_type']} checkpoint: {_first_line(error)}"
        raise CheckpointError(message) from None
    # transformers would fill what is missing at random and go on
    for kind, words in (("missing_keys", "lack"), ("mismatched_keys", "have another shape than the config says for")):
        names = sorted(str(name[0] if isinstance(name, tuple) else name) for name in report[kind])
        if names:
            raise CheckpointError(f"{label}: the weights {words} {names[0]} ({len(names)} in all)")
    return model.eval().requires_grad_(False)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
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
