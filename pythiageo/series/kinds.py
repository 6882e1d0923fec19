"""Kinds of models and of files that cannot be measured, told by a config and by file names before weights are fetched.

Each is refused in one sentence: what it is, and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pythiageo.errors import CheckpointError, PythiageoError, UserError
from pythiageo.series.checkpoint import Checkpoint

NOT_CAUSAL = "not-causal"
"""The status of a model in which a later token moves an earlier state."""
TRIED = 3
"""Checkpoints that are looked at before a series is refused: one may be damaged."""
_LAYOUTS = (
    (r"adapter_(config\.json|model\.(safetensors|bin))",
     "an adapter (PEFT) of a model that lies elsewhere",
     "merge it into that model (merge_and_unload) and save the whole"),
    (r"zero_to_fp32\.py|.*zero_pp_rank_\d+.*|bf16_zero_.*|(.*/)?layer_\d+-model_\d+-model_states\.pt",
     "shards of a DeepSpeed training", "put them together with its zero_to_fp32.py and save them with transformers"),
    (r"latest_checkpointed_iteration\.txt|(.*/)?mp_rank_\d+(_\d+)*(/.*|_model_states\.pt)?|.*model_optim_rng\.pt",
     "shards of a Megatron or DeepSpeed training",
     "convert them to transformers' format with that training's own tools"),
    (r".*\.nemo|model_config\.yaml|model_weights(/.*)?", "a NeMo model",
     "convert it to transformers' format with NeMo's own exporter"),
    (r"(.*/)?\.metadata|.*\.distcp", "shards of a distributed torch training (DCP)",
     "put them together (torch.distributed.checkpoint.format_utils) and save them with transformers"),
    (r".*\.gguf", "a GGUF file, quantised for llama.cpp", "take the model as it was before"),
    (r"consolidated(\.\d+)?\.(pth|safetensors)|params\.json", "a model in its maker's own format",
     "convert it with transformers' script for its family"),
    (r"tf_model\.h5|flax_model\.msgpack|.*\.ckpt(\.index)?", "weights for TensorFlow or JAX",
     "save them with transformers as model.safetensors"),
)  # fmt: skip


class KindError(CheckpointError):
    """A checkpoint of a kind that is not measured, whatever its weights are."""


def describe_layout(names: Iterable[str]) -> str | None:
    """Return what a folder without a model of transformers holds, and what to do; ``None`` where that is not known.

    ``names``: its files and folders, those inside a folder as ``folder/file``.

    >>> describe_layout(["adapter_config.json", "README.md"])[:47]
    'this is an adapter (PEFT) of a model that lies '
    """
    everything = list(names)
    for pattern, what, remedy in _LAYOUTS:
        if any(re.fullmatch(pattern, name) for name in everything):
            return f"this is {what}: {remedy}"
    return None


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder, and in the folders inside it."""
    if not folder.is_dir():
        return []
    return [path.relative_to(folder).as_posix() for one in sorted(folder.iterdir()) for path in (one, *_inside(one))]


def _inside(path: Path) -> list[Path]:
    return sorted(path.iterdir()) if path.is_dir() and not path.is_symlink() else []


def check_kind(config: dict[str, Any], label: str) -> None:
    """Refuse a config of a model that is not measured, whatever its weights.

    Raises:
        KindError: encoders and other models that see later tokens (status ``not-causal``), encoder-decoders, models of
            images or sound, quantised weights, code of the repository, other config files, a type that transformers
            does not know.
    """
    kind = config.get("model_type")
    for problem in (_other_weights(config), _unknown(kind), _not_text(config), _own_code(config)):
        if problem is not None:
            raise KindError(f"{label}: {problem}")
    if problem := _sees_later(config):
        raise KindError(
            f"{label}: {problem}: its states and scores would not be those of a causal language model", NOT_CAUSAL
        )


def _other_weights(config: dict[str, Any]) -> str | None:
    quantised = config.get("quantization_config")
    if quantised is not None:
        how = quantised.get("quant_method") if isinstance(quantised, dict) else None
        return (
            f"its config is of quantised weights{f' ({str(how)[:40]})' if how else ''}: take the model as it was before"
        )
    if config.get("compression_config") is not None:
        return "its config is of compressed weights: take the model as it was before"
    if config.get("configuration_files") is not None:
        return "its config names other config files in its place, which are not read"
    return None


def _not_text(config: dict[str, Any]) -> str | None:
    from transformers.models.auto import modeling_auto as known  # noqa: PLC0415 - takes seconds

    kind = config.get("model_type")
    causal = kind in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if config.get("is_encoder_decoder") is True or (
        kind in known.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES and not causal
    ):
        return f"this {kind} is an encoder-decoder, whose encoder sees all tokens: only decoders are measured"
    senses = {"vision_config", "audio_config", "vision_tower"} & config.keys()
    if senses or (kind in known.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES and not causal):
        return (
            f"this {kind} is a language model within one of images or sound: save its language model alone "
            f"(of its text_config), and name that"
        )
    return None


def _unknown(kind: Any) -> str | None:
    from transformers import __version__  # noqa: PLC0415
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES  # noqa: PLC0415

    if isinstance(kind, str) and kind not in CONFIG_MAPPING_NAMES:
        return (
            f"transformers cannot open this {kind[:80]} checkpoint: release {__version__} knows no such model_type, a "
            f"newer one may"
        )
    return None


def _own_code(config: dict[str, Any]) -> str | None:
    asked, known = _classes(config)
    if asked - known:
        return (
            "its config asks for code from the repository, which is never run, and transformers has no "
            f"{sorted(asked - known)[0][:80]} of its own"
        )
    return None


def describe_own_code(config: dict[str, Any]) -> str | None:
    """Return what is to be said of a config that names code of its repository for a class that transformers has."""
    asked, _ = _classes(config)
    if not asked:
        return None
    return f"{', '.join(sorted(asked))} as transformers has it: the repository's own code of that name was not run"


def _classes(config: dict[str, Any]) -> tuple[set[str], set[str]]:
    """Return the classes that a config takes from the repository's code, and those among them that transformers has.

    Names are compared in any letter case: ``MPTForCausalLM`` is ``MptForCausalLM`` there.
    """
    auto_map = config.get("auto_map")
    if auto_map is None:
        return set(), set()
    if not isinstance(auto_map, dict):
        return {"class"}, set()
    from transformers.models.auto import configuration_auto, modeling_auto  # noqa: PLC0415

    kind = config.get("model_type")
    asked = {
        str(auto_map[key]).rpartition(".")[2]
        for key in ("AutoConfig", "AutoModel", "AutoModelForCausalLM")
        if auto_map.get(key)
    }
    tables = (
        configuration_auto.CONFIG_MAPPING_NAMES,
        modeling_auto.MODEL_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    )
    theirs = {str(table.get(kind)).lower() for table in tables}
    return asked, {name for name in asked if name.lower() in theirs}


def _sees_later(config: dict[str, Any]) -> str | None:
    from transformers.models.auto import modeling_auto as known  # noqa: PLC0415

    kind = config.get("model_type")
    name = known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind) or kind
    if kind in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        decoder = kind in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and (config.get("is_decoder") or config.get("causal"))
        return None if decoder else f"this {name} sees later tokens (an encoder, by its config)"
    if config.get("use_bidirectional_attention") in (True, "all") or config.get("is_causal") is False:
        return f"this {name} sees later tokens (its config asks for attention in both directions)"
    return None


def check_kinds(checkpoints: Sequence[Checkpoint], label: str) -> None:
    """Refuse a series by the configs of its first checkpoints; of the Hub only these are fetched.

    Raises:
        UserError: every one that can be read is of a kind that is not measured; ``label`` begins the sentence.
        MachineError: the Hub cannot be reached.
    """
    from pythiageo.series.architecture import read_config  # noqa: PLC0415 - it asks for what is above

    refused: KindError | None = None
    with TemporaryDirectory(prefix="pythiageo-config-") as scratch:
        for number, checkpoint in enumerate(checkpoints[:TRIED]):
            try:
                read_config(checkpoint.describe(Path(scratch) / str(number)), checkpoint.label)
            except KindError as error:
                refused = refused or error
            except CheckpointError:
                continue
            except PythiageoError:
                raise
            else:
                return
    if refused is not None:
        raise UserError(f"{label}: {refused}")
