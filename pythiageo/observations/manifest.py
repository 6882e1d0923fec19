"""What a run says of itself: settings, provenance, probe sets, checkpoints, status."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pythiageo.durable_files import replace_file
from pythiageo.errors import UserError
from pythiageo.observations.schema import SCHEMA_VERSION, STEPS
from pythiageo.untrusted_files import MIB, BadFileError, read_json

MANIFEST_NAME = "manifest.json"
_LIMIT = 64 * MIB
"""A manifest of more bytes than this is not one."""
_KINDS = {"model_type": "an object", "dict_type": "an object", "list_type": "a list", "string_type": "a text",
          "int_type": "a whole number", "bool_type": "true or false", "missing": "there"}  # fmt: skip

Object = dict[str, Any]


class _Facts(BaseModel):
    """Facts in JSON. Fields that are not known here are kept, and written again."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    def as_json(self) -> Object:
        """Return what was said, as the file has it: no defaults are filled in."""
        return self.model_dump(exclude_unset=True)


class CheckpointEntry(_Facts):
    """How the measurement of one checkpoint went.

    ``source``: what a saved one was read from. ``passes``: how prompts went through the model. ``kept``: the sha256 of
    each file that is kept beside the table (``sidecars``), by its kind.
    """

    step: Annotated[int, Field(ge=0, lt=STEPS)]
    label: str | None = None
    weight_sha: str | None = None
    status: str | None = None
    reason: str | None = None
    source: Object | None = None
    passes: str | None = None
    kept: Object | None = None


class ProbeSetEntry(_Facts):
    """A probe set that the run asks. ``purpose``: ``score`` or ``geometry``."""

    task: str | None = None
    level: str | None = None
    purpose: str | None = None
    rule: str | None = None
    hash: str | None = None
    examples: int | None = None
    chance: float | None = None
    majority_rate: float | None = None


class Provenance(_Facts):
    """The code, machine and command that numbers come from."""

    pythiageo: str | None = None
    numbers: int = 1
    """Version of what the code measures; manifests of 0.1.0 have none."""
    python: str | None = None
    platform: str | None = None
    packages: Object | None = None
    git_commit: str | None = None
    git_dirty: bool | None = None
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None
    processing: str | None = None
    command: list[Any] | None = None
    notes: list[Any] = []


class ModelFacts(_Facts):
    """The measured model."""

    architecture: str | None = None
    parameters: int | None = None
    counting: str | None = None
    """Which parameters are counted."""
    layers: int | None = None
    d_model: int | None = None
    initialisation: str | None = None


class Pending(_Facts):
    """Probe sets, ``[task, level]``, that are still to be measured anew at ``steps``."""

    probes: list[Any] = []
    steps: list[int] = []

    def without(self, steps: Collection[int]) -> Pending | None:
        """Return what is left once these steps are done, ``None`` if nothing is."""
        left = [step for step in self.steps if step not in steps]
        return Pending(probes=self.probes, steps=left) if left else None


class Manifest(_Facts):
    """What a run says of itself. Every field may be missing: the manifest may be a stranger's or of 0.1.0."""

    schema_version: str | int = SCHEMA_VERSION
    name: str | None = None
    kind: str | None = None
    """``train``, ``analyze``, ``import`` or ``follow``."""
    status: str | None = None
    """``running``, ``complete``, ``interrupted`` or ``diverged``."""
    config: Object = {}
    provenance: Provenance = Provenance()
    probe_sets: list[ProbeSetEntry] = []
    checkpoints: list[CheckpointEntry] = []
    corpus: Object | None = None
    training: Object | None = None
    """How far training came."""
    series: str | None = None
    regime: str | None = None
    size: str | None = None
    seed: int | None = None
    steps: list[int] = []
    remarks: list[str] | None = None
    tokenizer: Object | None = None
    """The tokenizer that was named for checkpoints without one."""
    unlisted: str | None = None
    """What of the series the audit has not seen yet, in a sentence."""
    pending: Pending | None = None
    model: ModelFacts | None = None
    earlier_provenance: list[Provenance] = []

    def __getitem__(self, key: str) -> Any:
        """Return a field as the JSON has it: ``manifest["status"]``, as notebooks of 0.1.0 read it."""
        return self.as_json()[key]

    def changed(self, **fields: Any) -> Self:
        """Return the manifest with other values of some fields."""
        return type(self).model_validate({**self.as_json(), **fields})

    def settings(self, section: str) -> Mapping[str, Any]:
        """Return a section of the config (``training``, ``data``), empty where it has none."""
        found = self.config.get(section)
        return found if isinstance(found, dict) else {}


def read_manifest(run_folder: Path) -> Manifest:
    """Return a run's manifest. Only the schema version is checked: a value of another kind than a run writes is left
    out, as if it were not there.

    Raises:
        UserError: no manifest, not a plain file that holds a JSON object, or written under a newer schema.
    """
    return without_mistakes(_read_object(Path(run_folder)))


def read_whole_manifest(run_folder: Path) -> Manifest:
    """Return a run's manifest for what changes it or goes on from it: every value is of the kind that a run writes.

    Raises:
        UserError: as ``read_manifest``; or a value of another kind.
    """
    said = _read_object(Path(run_folder))
    try:
        return Manifest.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        kind = _KINDS.get(first["type"])
        must = f"must be {kind}" if kind else f"must be otherwise: {first['msg'][0].lower()}{first['msg'][1:]}"
        found = str(first["input"])[:40] if kind is None else type(first["input"]).__name__
        raise UserError(f"{Path(run_folder) / MANIFEST_NAME}: {key!r} {must}, found {found}.") from None


def without_mistakes(said: Object) -> Manifest:
    """Return what of a JSON object is of the kinds that a manifest has."""
    try:
        return Manifest.model_validate(said)
    except ValidationError as error:
        mistakes: dict[Any, set[Any]] = defaultdict(set)
        for one in error.errors(include_url=False, include_context=False, include_input=False):
            key, *inner = one["loc"]
            mistakes[key] |= set(inner[:1])
    kept = {}
    for key, value in said.items():
        wrong = mistakes.get(key)
        if wrong is None:
            kept[key] = value
        elif wrong and isinstance(value, dict):
            kept[key] = {name: one for name, one in value.items() if name not in wrong}
        elif wrong and isinstance(value, list):
            kept[key] = [one for index, one in enumerate(value) if index not in wrong]
    return Manifest.model_validate(kept)


def write_manifest(run_folder: Path, manifest: Manifest, kept: str) -> None:
    """Write a run's manifest, whole or not at all; ``kept``: what is whole should that fail.

    Raises:
        MachineError: it could not be written.
    """
    text = json.dumps(manifest.as_json(), indent=1) + "\n"
    replace_file(Path(run_folder) / MANIFEST_NAME, text.encode(), kept)


def check_inside(path: Path, folder: Path) -> None:
    """Raise ``UserError`` if ``path`` is a link that leads out of the run folder."""
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a link to itself, a name too long
        inside = False
    if not inside:
        raise UserError(f"{path} leads outside the run folder {folder}; copy the file into it.")


def check_version(version: str, path: Path) -> None:
    """Raise ``UserError`` unless a file's schema version is the one that is read here."""
    if version == SCHEMA_VERSION:
        return
    if not version:
        raise UserError(f"{path} does not name its schema version, so pythiageo did not write it.")
    if version.isdigit() and int(version) > int(SCHEMA_VERSION):
        raise UserError(
            f"{path} has schema version {version}, and this pythiageo reads {SCHEMA_VERSION}: update pythiageo."
        )
    raise UserError(f"{path} has schema version {version!r}, expected {SCHEMA_VERSION}.")


def _read_object(run_folder: Path) -> Object:
    path = run_folder / MANIFEST_NAME
    check_inside(path, run_folder)
    try:
        said = read_json(path, _LIMIT)
    except FileNotFoundError:
        raise UserError(f"{run_folder} is not a run folder: it has no {MANIFEST_NAME}.") from None
    except BadFileError as error:
        raise UserError(f"{path} {error}.") from None
    if not isinstance(said, dict):
        raise UserError(f"{path} must hold a JSON object, found {type(said).__name__}.")
    check_version(str(said.get("schema_version", "")), path)
    return said
