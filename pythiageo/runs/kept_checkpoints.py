"""What a training run kept, as it really lies on the disk, and how what is lost is made anew."""

from __future__ import annotations

import logging
from pathlib import Path

from pythiageo.errors import CheckpointError, UserError, quote_error, raise_if_memory
from pythiageo.measurement.checkpoint import LiveCheckpoint
from pythiageo.runs.folder import RunFolder
from pythiageo.series.audit.rules import name_steps
from pythiageo.series.files.fingerprint import combine
from pythiageo.series.files.load import read_config
from pythiageo.series.files.tensor_files import read_json, stored_tensors
from pythiageo.synthetic.trainer import Trainer

_BESIDE = ("tokenizer.json", "tokenizer_config.json", "training.json")
_LOG = logging.getLogger("pythiageo")


def find_damage(folder: Path, weight_sha: str | None) -> str | None:
    """Return what is wrong with a checkpoint folder, ``None`` if it holds all it should; every byte of it is read.

    ``weight_sha``: the fingerprint of the weights that were measured.

    Raises:
        MachineError: memory runs out.
    """
    label = folder.name
    try:
        read_config(folder, label)
        for name in _BESIDE:
            read_json(folder / name, label)
        found = combine(tensor.facts for tensor in stored_tensors(folder, label).values())
    except CheckpointError as error:
        return str(error)
    except (OSError, RuntimeError, ValueError) as error:
        raise_if_memory(error, f"{label} was looked at")
        return f"{label}: {quote_error(error)}"
    return None if found == weight_sha else f"{label}: its weights are not those that were measured"


def find_whole(folder: RunFolder, keeps: bool) -> dict[int, str | None]:
    """Return the steps of which everything is there, with their weights' fingerprints; tell which are not.

    ``keeps``: weights belong to it.

    Raises:
        MachineError: memory runs out.
    """
    folder.mend()
    found = folder.finished()
    if not keeps:
        return found
    looked_at = {step: find_damage(folder.checkpoints / f"step{step}", sha) for step, sha in found.items()}
    damaged = {step: damage for step, damage in looked_at.items() if damage}
    if damaged:
        told = "; ".join(list(damaged.values())[:3])
        _LOG.warning(f"{folder.path}: {len(damaged)} of {len(found)} kept checkpoints are not whole: {told}")
    return {step: sha for step, sha in found.items() if step not in damaged}


def must_go_back(trainer: Trainer, folder: RunFolder, lost: set[int]) -> bool:
    """Load the state of a run that goes on, if there is one; return whether training must start at step 0 again.

    It must where the state is gone or damaged, and where one of the ``lost`` steps lies behind it: a state of an
    earlier step is not kept. What was loaded is then of no use.
    """
    if not folder.state.exists():
        again = max(folder.finished(), default=0) > 0
        if again:
            _LOG.warning(f"{folder.path}: {folder.state.name} is not there: training starts at step 0 again")
        return again
    try:
        trainer.load(folder.state)
    except UserError as error:
        _LOG.warning(f"{error}: training starts at step 0 again")
        return True
    behind = sorted(step for step in lost if step < trainer.step)
    if behind:
        _LOG.warning(f"{folder.path}: training starts at step 0 again, to make {name_steps(behind)} anew")
    return bool(behind)


def is_repeated(folder: RunFolder, whole: dict[int, str | None], checkpoint: LiveCheckpoint) -> bool:
    """Return whether training from step 0 again came to weights that are whole, so that their step stands.

    At the first step with other weights than before, it and all after it are forgotten, of ``whole`` too: so a table is
    never of two trainings, on a machine too that does not repeat a training to the last bit.
    """
    known = whole.get(checkpoint.step)
    if known is not None and known != checkpoint.weight_sha:
        _LOG.warning(
            f"{folder.path}: trained again, step {checkpoint.step} has other weights than before: it and all after "
            f"it are measured again"
        )
        folder.forget_after(checkpoint.step - 1)
        whole.clear()
    return known is not None and known == checkpoint.weight_sha
