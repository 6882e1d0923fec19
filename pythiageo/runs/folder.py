"""A run's folder: manifest, lock, observations, checkpoints, training state. Every write is whole or not there."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pythiageo.config.renamed import with_new_keys
from pythiageo.config.runs import RunConfig
from pythiageo.durable_files import KEPT, drop_leftovers, is_leftover, new_folder, remove, replace_file
from pythiageo.errors import MEMORY, MachineError, PythiageoError, UserError, machine_trouble
from pythiageo.locations import check_folder, make_folder
from pythiageo.measurement.result import CheckpointResult
from pythiageo.observations import SCHEMA_VERSION, Manifest, ObservationStore, read_whole_manifest
from pythiageo.observations.manifest import MANIFEST_NAME as MANIFEST
from pythiageo.observations.manifest import CheckpointEntry, Provenance, write_manifest
from pythiageo.observations.mending import mend
from pythiageo.observations.sidecars import SKETCHES, SPECTRA, SidecarStore
from pythiageo.runs.lock import LOCK_FILES, held
from pythiageo.runs.provenance import list_earlier, provenance
from pythiageo.series.audit.rules import name_steps
from pythiageo.untrusted_files import check_own

AUDIT = "audit.json"
STATE = "state.safetensors"
LOG = "log.jsonl"
HASHES = "hashes.json"
TENSORBOARD = "tensorboard"
_OWN = (STATE, "observations.parquet", "observations", SPECTRA, SKETCHES, "checkpoints", "downloads", AUDIT, LOG,
        HASHES, TENSORBOARD, MANIFEST)  # fmt: skip
"""What a run writes. The manifest goes last: as long as it is there, the rest is known to be a run's."""
_FOLDERS = {"observations", SPECTRA, SKETCHES, "checkpoints", "downloads", TENSORBOARD}
_FILES = {
    *LOCK_FILES,
    *(form for name in _OWN if name not in _FOLDERS for form in (name, f".{name}.tmp", f"{name}.tmp")),
}
_PASSING = ("unreadable", "corrupt", "too-large")
_SOUND = ("ok", "same-as-neighbour")
_MAY_CHANGE = ("training.stop", "training.checkpoints")
"""A resumed training run may go on for longer, and be looked at more or less often from there on."""
_LOG = logging.getLogger("pythiageo")


class RunFolder:
    """The folder of one run, opened for writing. Use ``open_run_folder``."""

    def __init__(self, path: Path, manifest: Manifest, before: Manifest | None = None) -> None:
        self.path = path
        self.manifest = manifest
        self.before = before
        """The manifest as a resumed run left it: it stands on the disk until the first ``update``."""
        self.begun = False
        self.observations = ObservationStore(path)
        self.sidecars = SidecarStore(path)
        """What is kept beside the observations, where that was asked for."""
        self.checkpoints = path / "checkpoints"
        self.state = path / STATE
        self.log = path / LOG
        """One line a checkpoint: when, and how long its parts took."""
        self.tensorboard = path / TENSORBOARD
        """Event files, where they were asked for."""
        self.hashes = path / HASHES
        """Hashes of a series' files, for a resumed run."""
        self.downloads = path / "downloads"
        """Checkpoints on their way through; whatever a killed run left here is used or removed."""

    def note(self, **fields: Any) -> None:
        """Change fields of the manifest; the next ``update`` writes them."""
        self.manifest = self.manifest.changed(**fields)

    def update(self, **fields: Any) -> None:
        """Change fields of the manifest and write it."""
        self.begun = True
        self.note(**fields)
        write_manifest(self.path, self.manifest, KEPT)

    def forget(self, gone: Collection[int], /, **fields: Any) -> None:
        """Remove what was measured at these steps, and change fields of the manifest."""
        self.update(checkpoints=[one for one in self.manifest.checkpoints if one.step not in gone], **fields)
        self.observations.drop(gone)
        self.sidecars.drop(gone)

    def keep(self, result: CheckpointResult) -> None:
        """Write a result: what is kept beside its rows, these, and then the manifest, which knows only what is there.

        Every run does so, of a saved series as of a model in training, before it asks for the next one.
        """
        kept = self.sidecars.write(result.step, result.kept)
        self.observations.write(result.step, result.rows)
        if result.model is not None:
            self.note(model=result.model)
        entry = {key: getattr(result, key) for key in ("step", "label", "weight_sha", "status", "reason")}
        if result.source is not None:
            entry["source"] = result.source._asdict()
        if result.passes is not None:
            entry["passes"] = result.passes
        if kept:
            entry["kept"] = kept
        if pending := self.manifest.pending:
            self.note(pending=pending.without([result.step]))
        entries = [known for known in self.manifest.checkpoints if known.step != result.step]
        entries.append(CheckpointEntry.model_validate(entry))
        self.update(checkpoints=sorted(entries, key=lambda known: known.step))

    def forget_after(self, step: int) -> list[int]:
        """Remove what was measured at later steps, weights too; return these steps."""
        later = [known.step for known in self.manifest.checkpoints if known.step > step]
        self.update(checkpoints=[known for known in self.manifest.checkpoints if known.step <= step])
        self.observations.drop_after(step)
        self.sidecars.drop(later)
        for known in later:
            shutil.rmtree(self.checkpoints / f"step{known}", ignore_errors=True)
        return later

    def mend(self) -> set[int]:
        """Look at what is really there before the run goes on, and remove what is cut, empty or half written.

        Steps that the manifest calls measured and whose observations are gone are told, and returned. Observations that
        the manifest does not know, as a kill between the two leaves them, are removed: nothing says what they are of.
        Where what was kept beside the observations is not what was written, both are made again.
        """
        drop_leftovers(self.path)
        drop_leftovers(self.checkpoints)
        known = {entry.step: entry.weight_sha for entry in self.manifest.checkpoints}
        found = mend(self.path)
        of_others = {step for step in found.keys() & known.keys() if None not in (found[step], known[step])}
        strange = {step for step in of_others if found[step] != known[step]} | (found.keys() - known.keys())
        damaged = self.sidecars.mend(self.manifest.checkpoints)
        self.observations.drop(strange | damaged)
        lost = known.keys() - set(self.observations.steps())
        if lost:
            steps = name_steps(sorted(lost))
            _LOG.warning(
                f"{self.path}: the manifest calls {steps} measured, but the observations"
                f"{', or the spectra and sketches beside them,' if damaged else ''} are cut, empty or not there"
            )
        return lost

    def finished(self) -> dict[int, str | None]:
        """Return the steps whose observations are there and in the manifest, each with its weights' fingerprint."""
        there = set(self.observations.steps())
        return {entry.step: entry.weight_sha for entry in self.manifest.checkpoints if entry.step in there}

    def worth_retrying(self) -> set[int]:
        """Return the steps that could not be fetched or read: a resumed run tries them again."""
        return {entry.step for entry in self.manifest.checkpoints if entry.status in _PASSING}

    def drop_downloads(self) -> None:
        """Remove what fetching left behind."""
        shutil.rmtree(self.downloads, ignore_errors=True)

    def add_audit(self, audit: dict[str, Any]) -> None:
        """Keep the audit of the series that the run measures."""
        replace_file(self.path / AUDIT, (json.dumps(audit, indent=2) + "\n").encode(), KEPT)

    @property
    def device(self) -> str:
        """The device of the forward passes."""
        return str(self.manifest.provenance.device)

    @property
    def sound(self) -> bool:
        """Whether no checkpoint needs a look: each was measured, or holds the weights of one that was."""
        return all(entry.status in _SOUND for entry in self.manifest.checkpoints)

    @contextmanager
    def new_checkpoint(self, step: int) -> Iterator[Path]:
        """Give a path to write checkpoint ``step`` to; it appears as ``checkpoints/stepN`` once it is whole."""
        self.checkpoints.mkdir(exist_ok=True)
        with new_folder(self.checkpoints / f"step{step}") as temporary:
            yield temporary


@contextmanager
def open_run_folder(path: Path, config: RunConfig, resume: bool, overwrite: bool, device: str) -> Iterator[RunFolder]:
    """Open ``path`` for ``config`` on ``device``, new or to be resumed, and hold its lock meanwhile.

    An interrupted or failed run is left with its status in the manifest and can be resumed; of a new one that a mistake
    ended before anything was measured nothing is left, so that the same line can be given again, corrected. A full
    disk, and memory that runs out, become a ``MachineError``, whatever library met them.

    Raises:
        UserError: the folder holds something else, a run of another config, or a run and neither ``resume`` nor
            ``overwrite`` was asked for; or another process works on it; or what would be written to or removed is a
            link or no plain file; it cannot be made or written to.
    """
    check_folder(path)
    new, made = not (path / MANIFEST).exists(), not path.exists()
    if path.is_dir():
        check_own(path, _FILES, _FOLDERS)
    if (path / MANIFEST).exists() or not path.exists() or _unused(path):
        make_folder(path)
    else:
        raise UserError(f"{path}: not a run folder, and not empty: choose another with --out")
    try:
        with held(path):
            before = read_whole_manifest(path) if resume and not overwrite and (path / MANIFEST).exists() else None
            folder = RunFolder(path, _manifest(path, config, resume, overwrite, device), before)
            if before is None:
                folder.update(status="running")
            else:  # written once its rows were held against what is there now
                folder.note(status="running")
            try:
                yield folder
            except (Exception, KeyboardInterrupt) as error:
                _note_end(folder, new, error)
                raise
    except PythiageoError:
        if made and _unused(path):
            remove(path)
        raise
    except Exception as error:
        if trouble := machine_trouble(error):
            cure = "free memory" if trouble == MEMORY else "free space"
            raise MachineError(f"{path}: {trouble}; what was measured is kept: {cure}, then --resume") from None
        raise


def _note_end(folder: RunFolder, new: bool, error: BaseException) -> None:
    """Note in the manifest that a run was cut off; a new one that a mistake ended before all else is removed."""
    if new and isinstance(error, UserError) and not folder.manifest.checkpoints:
        for name in _OWN:
            remove(folder.path / name)
    elif folder.begun and folder.manifest.status == "running":
        with suppress(MachineError):
            folder.update(status="interrupted")


def _unused(path: Path) -> bool:
    """Return whether a folder holds nothing but what a run that was killed at once leaves there."""
    return path.is_dir() and all(entry.name in LOCK_FILES or is_leftover(entry) for entry in path.iterdir())


def _manifest(path: Path, config: RunConfig, resume: bool, overwrite: bool, device: str) -> Manifest:
    resolved = config.model_dump(mode="json")
    if (path / MANIFEST).exists():
        old = read_whole_manifest(path)
        if overwrite:
            write_manifest(path, old.changed(status="interrupted"), KEPT)  # from here on it is not whole
            for name in _OWN:
                remove(path / name)
        elif not resume:
            raise UserError(
                f"{path}: holds a run already ({old.status}): --resume goes on with it, --overwrite starts anew"
            )
        else:
            free = {*_MAY_CHANGE, *(["training.cuda_graphs"] if device == "cpu" else [])}  # nothing is recorded there
            changed = sorted({*_differences(_completed(old.config, config), resolved)} - free)
            if changed:
                raise UserError(
                    f"{path}: holds a run of another config; {', '.join(changed)} differ: "
                    f"choose another folder with --out, or --overwrite"
                )
            before = old.provenance.device or device
            if before != device:
                raise UserError(
                    f"{path}: was measured on {before} so far, this is {device}: numbers of one table come from one "
                    f"device: choose another folder with --out, or --overwrite"
                )
            now = provenance(config.compute, device)
            return old.changed(config=resolved, provenance=now, earlier_provenance=list_earlier(old, now))
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=config.name,
        kind=config.kind,
        status="running",
        config=resolved,
        provenance=Provenance.model_validate(provenance(config.compute, device)),
        probe_sets=[],
        checkpoints=[],
        corpus=None,
        training=None,
    )


def _completed(old: dict[str, Any], config: RunConfig) -> dict[str, Any]:
    """Return an older config with the defaults of settings that did not exist yet; itself where it is no config now."""
    try:
        return type(config).model_validate(with_new_keys(old)).model_dump(mode="json")
    except ValidationError:
        return old


def _differences(old: Any, new: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            yield from _differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
    elif old != new:
        yield prefix
