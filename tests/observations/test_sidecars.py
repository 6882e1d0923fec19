"""Files beside the table: whole or not there, known by their hash, joined probe set by probe set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pythiageo.errors import UserError
from pythiageo.observations.manifest import CheckpointEntry
from pythiageo.observations.sidecars import Kept, SidecarStore, SketchRow, SpectrumRow

SHA = "ab" * 32


def spectrum(task: str = "ADD", step: int = 5, **changed: object) -> SpectrumRow:
    row = SpectrumRow(
        step, SHA, task, "mixed", "0123", 0, "blocks.0.hook_resid_post", "answer/centred", "ok", None, n=3, width=2,
        sigma=np.array([2.0, 1e-300]), method="gram", every_value=False, largest=2.5, unit=6e-8, spectral=1e-7,
        described="rows", left_out=None, dominated=None,
    )  # fmt: skip
    return row._replace(**changed)


def sketch(task: str = "ADD", step: int = 5) -> SketchRow:
    return SketchRow(
        step, SHA, task, "mixed", "0123", None, "hook_embed", "mean", "ok", None, items="a", fed="b", n=2, of=4,
        width=3, unit=6e-8, spectral=1e-7, scale=2.0, values=np.arange(6, dtype=np.float32),
    )  # fmt: skip


def entry(kept: dict[str, str] | None, step: int = 5) -> CheckpointEntry:
    return CheckpointEntry(step=step, weight_sha=SHA, kept=kept)


def same(one: tuple, other: tuple) -> bool:
    return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in zip(one, other, strict=True))


def test_what_is_written_is_read_bit_for_bit(tmp_path: Path) -> None:
    store = SidecarStore(tmp_path)
    failed = spectrum("MOD", status="failed", reason="why", n=None, width=None, sigma=None, method=None,
                      every_value=None, largest=None, unit=None, spectral=None, described=None)  # fmt: skip
    limits = spectrum("CMP", finer=np.array([1.0, 0.5]), noise=np.zeros(2), columns=np.ones(2))
    said = store.write(5, Kept([failed, spectrum(), limits], [sketch()]))
    assert set(said) == {"spectra", "sketches"}
    found = store.read(entry(said))
    for row, expected in zip(found.spectra or [], [spectrum(), limits, failed], strict=True):  # by task
        assert same(row, expected)
    [row] = found.sketches or []
    assert same(row, sketch())
    assert row.values is not None
    assert row.values.dtype == np.float32
    assert store.write(5, Kept([limits, spectrum(), failed], [sketch()])) == said  # equal rows, equal bytes
    assert store.write(5, Kept([spectrum()])).keys() == {"spectra"}
    assert not store.path("sketches", 5).exists()
    assert store.read(entry(None)) == Kept()


def test_what_is_not_as_it_was_written_is_told_and_removed(tmp_path: Path) -> None:
    store = SidecarStore(tmp_path)
    said = {step: store.write(step, Kept([spectrum(step=step)], [sketch(step=step)])) for step in (5, 6, 7, 8)}
    entries = [entry(said[step], step) for step in (5, 6, 7)]  # a kill came before the manifest knew 8
    store.path("spectra", 6).write_bytes(b"")
    store.path("sketches", 7).unlink()
    assert store.mend(entries) == {6, 7}
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.parquet"))
    assert left == ["sketches/step-00000005.parquet", "spectra/step-00000005.parquet"]
    store.drop([5])
    assert not list(tmp_path.rglob("*.parquet"))


def test_rows_of_what_is_measured_anew_take_the_place_of_the_others() -> None:
    earlier = Kept([spectrum("ADD"), spectrum("MOD")], [sketch("ADD")])
    joined = Kept([spectrum("ADD", n=9)], []).joined(earlier, {("ADD", "mixed")})
    assert [(row.task, row.n) for row in joined.spectra or []] == [("MOD", 3), ("ADD", 9)]
    assert joined.sketches == []
    assert Kept().joined(earlier, {("MOD", "mixed")}).spectra == [earlier.spectra[0]]  # type: ignore[index]
    assert Kept().joined(Kept(), {("ADD", "mixed")}) == Kept()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"step": 6}, "its step is 6, and the file's name says 5"),
        ({"weight_sha": "cd" * 32}, "of other weights than step 5 of the manifest"),
        ({"status": "fine"}, "unknown status 'fine'"),
        ({"status": "failed"}, "status failed needs a reason"),
        ({"sigma": None}, "status ok needs sigma"),
        ({"sigma": np.array([np.inf, 1.0])}, "NaN or infinity"),
        ({"largest": float("nan")}, "NaN or infinity"),
    ],
)
def test_a_row_that_pythiageo_would_not_write_is_refused(
    changed: dict[str, object], message: str, tmp_path: Path
) -> None:
    store = SidecarStore(tmp_path)
    said = store.write(5, Kept([spectrum()._replace(**changed)]))
    with pytest.raises(UserError, match=message):
        list(store.spectra(entry(said)))
