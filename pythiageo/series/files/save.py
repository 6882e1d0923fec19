"""A model in memory as a checkpoint: written as transformers writes it, and read back like any other.

So what is measured is what its saved checkpoint would hold, by the code that would read it, with the same fingerprint,
and the model itself is left alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from pythiageo.errors import MachineError, UserError, machine_trouble, quote_error
from pythiageo.series.architecture import quiet_transformers


def write_snapshot(model: nn.Module, tokenizer: Any, folder: Path) -> None:
    """Write ``model`` and ``tokenizer`` into ``folder``, as ``save_pretrained`` does; nothing of the model changes.

    A wrapper of ``torch.compile`` or of data parallelism is looked through.

    Raises:
        UserError: not a causal language model of transformers as it comes; adapters, quantised or sharded weights; a
            tokenizer without a ``tokenizer.json``.
        MachineError: the disk is full, or memory runs out.
    """
    plain = _plain(model)
    _check(plain)
    if not hasattr(tokenizer, "save_pretrained"):
        raise UserError(f"expected a tokenizer of transformers, got a {type(tokenizer).__name__}")
    before = dict(vars(plain.config))
    try:
        with quiet_transformers():
            tokenizer.save_pretrained(folder)
            if not (folder / "tokenizer.json").is_file():
                raise UserError(
                    f"a {type(tokenizer).__name__} cannot be read: expected a fast tokenizer, with a tokenizer.json"
                )
            plain.save_pretrained(folder)
    except Exception as error:
        if trouble := machine_trouble(error):
            raise MachineError(f"{trouble}: a copy of the model could not be written to {folder}") from None
        if not isinstance(error, ValueError):
            raise
        raise UserError(f"transformers cannot save this {type(plain).__name__}: {quote_error(error)}") from None
    finally:
        # save_pretrained notes dtype and class in the config
        vars(plain.config).clear()
        vars(plain.config).update(before)


def _plain(model: Any) -> Any:
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        else:
            return model


def _check(model: Any) -> None:
    """Raise ``UserError`` for what would be read back as something else than it is."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedModel  # noqa: PLC0415 - takes seconds

    name = type(model).__name__
    if not isinstance(model, PreTrainedModel):
        raise UserError(f"expected a causal language model of transformers, got a {name}")
    known = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(model.config), None)
    if type(model) is not known:
        # a subclass may compute something else than its saved checkpoint does
        expected = f"a {known.__name__}" if known else "a causal language model of transformers"
        raise UserError(f"expected {expected} as transformers opens it from a checkpoint, got a {name}")
    if getattr(model, "_hf_peft_config_loaded", False):
        raise UserError(f"this {name} carries adapters, which are saved apart from it: merge them first")
    for parameter_name, parameter in model.named_parameters():
        # a DTensor has full_tensor; DeepSpeed and FSDP leave empty parameters behind
        if hasattr(parameter, "full_tensor") or parameter.is_meta or not parameter.numel():
            raise UserError(f"{parameter_name} is not whole in this process (sharded or offloaded): gather it first")
    if getattr(model, "is_quantized", False):
        raise UserError(f"the weights of this {name} are quantised: take the model as it was before")
