"""What a few rows of each step tell: against closed forms, walks without a fault, and planted faults."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from faults import FAULTS, Others, cast, doubted
from trajectories import GRIDS, WALKS, Sample, walk

from pythiageo.cli.app import run as cli
from pythiageo.series.audit.continuity import find_misplaced
from pythiageo.series.audit.relations import relate
from pythiageo.series.audit.samples import Samples
from pythiageo.series.audit.start import describe_start
from pythiageo.series.audit.values import judge_values
from pythiageo.series.files.slices import MIDDLE

EVEN = GRIDS["even"][:16]


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(
    seed: int, kind: str = "both", steps: list[int] = EVEN, shape: tuple[int, int] = (32, 48)
) -> dict[int, Sample]:
    return walk(steps, draw(seed), *WALKS[kind], shape)


def kinds(series: dict[int, Sample]) -> dict[int, str]:
    return {one.step: one.kind for one in judge_values(Samples(series, {}, 0)).findings}


def test_relations_are_those_of_dense_float64() -> None:
    matrices = [torch.randn(40, 24, generator=draw(seed)).half() for seed in range(4)]
    found = relate(matrices)
    x = np.stack([one.double().numpy() for one in matrices])
    distance = np.sqrt(((x[:, None] - x[None]) ** 2).mean((2, 3)))
    assert np.allclose(found.distance, distance, atol=1e-12)
    y = x - x.mean(2, keepdims=True)
    inner = np.einsum("arc,brc->ab", y, y)
    norms = np.sqrt(np.diag(inner))
    assert np.allclose(found.cosine, inner / np.outer(norms, norms), atol=1e-6)  # centred in float32
    spread = np.sqrt(np.einsum("arc,asc,brk,bsk->ab", y, y, y, y) / 23)
    assert np.allclose(found.z, inner / spread, rtol=1e-5, atol=1e-5)


def test_what_has_no_initialisation_in_common_has_a_normal_z_whatever_its_spectrum() -> None:
    def trained(generator: torch.Generator) -> torch.Tensor:
        low = torch.randn(30, 3, generator=generator) @ torch.randn(3, 64, generator=generator)
        return 2 * low + torch.randn(30, 64, generator=generator) + torch.randn(1, 64, generator=generator)

    generator = draw(0)
    z = relate([trained(generator) for _ in range(60)]).z[np.triu_indices(60, 1)]
    # 1,770 pairs of 60 matrices: the standard error of their spread is below 0.1
    assert abs(float(z.std()) - 1) < 0.15
    assert abs(float(z.mean())) < 0.15
    assert float(np.abs(z).max()) < 5


def test_a_detour_of_known_length() -> None:
    line = np.arange(8.0)
    distance = np.abs(line[:, None] - line[None])
    assert find_misplaced(distance, 1e-9) == []
    order = [0, 1, 5, 3, 4, 2, 6, 7]
    found = find_misplaced(distance[np.ix_(order, order)], 1e-9)
    assert {one.at for one in found} == {2, 5}
    # 5 between 1 and 3: 4 + 2 - 2; between 4 and 6 nothing, where 2 is out of the way
    assert (found[0].at, found[0].cost, found[0].best) == (2, 4.0, 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_sound_series_raise_no_alarm(dtype: torch.dtype) -> None:
    for grid in GRIDS.values():
        for kind in WALKS:
            assert doubted(cast(made(1, kind, grid), dtype)) == set()


def test_planted_faults_are_found_and_nothing_else_is_doubted() -> None:
    plain = made(2)
    others = Others(made(3), None)
    for name, fault in FAULTS.items():
        planted = fault(plain, others, draw(7))
        if planted is not None:
            told = doubted(planted.series)
            assert told >= planted.wrong, name
            # of two neighbours with the same weights nothing tells which is right
            assert len(told - planted.wrong) <= ("another step" in name), name


def test_a_spike_a_border_and_a_soup_are_no_faults() -> None:
    spike = made(4)
    for step, sample in spike.items():
        if step >= EVEN[8]:  # what a spike has moved stays moved
            for role, rows in sample.items():
                jump = 0.1 * torch.randn(rows.values.shape, generator=draw(len(role)))
                spike[step] = {**spike[step], role: rows._replace(values=rows.values + jump)}
    assert doubted(spike) == set()
    # a second stage that begins at an earlier step than the last of the first: named as a stage it is none
    first, second = made(5), made(5, steps=[0, *EVEN[1:]])
    joined = {step: first[step] for step in EVEN[:12]}
    joined |= {20_000 + step: second[step] for step in EVEN[6:14]}
    stages = {step: "one" if step < 20_000 else "two" for step in joined}
    assert not {one for one in doubted(joined, stages) if joined[one] is not first.get(one - 20_000)} & set(EVEN[:6])
    # a soup of two parallel runs, from which a third goes on
    parallel = [made(seed, steps=[0, *EVEN[1:5]]) for seed in (9, 10)]
    border = EVEN[10]
    runs = [
        {
            border + step: {
                role: rows._replace(values=first[border][role].values + rows.values - run[0][role].values)
                for role, rows in run[step].items()
            }
            for step in EVEN[1:5]
        }
        for run in parallel
    ]
    ends = [run[border + EVEN[4]] for run in runs]
    soup = {role: rows._replace(values=(rows.values + ends[1][role].values) / 2) for role, rows in ends[0].items()}
    after = {
        border + EVEN[4] + 1 + step: {
            role: rows._replace(values=soup[role].values + rows.values - sample[0][role].values)
            for role, rows in sample[step].items()
        }
        for sample in (made(12, steps=[0, *EVEN[1:5]]),)
        for step in EVEN[:5]
    }
    assert doubted({**{step: first[step] for step in EVEN[:11]}, **runs[0], **after}) == set()


def test_shapes_and_numbers_that_do_not_belong_are_named() -> None:
    series = made(6)
    small = walk(EVEN, draw(6), *WALKS["both"], (32, 40))
    series[3000] = small[3000]
    rows = series[5000][MIDDLE]
    series[5000] = {**series[5000], MIDDLE: rows._replace(values=rows.values * math.nan)}
    assert kinds(series) == {3000: "another-shape", 5000: "not-finite"}
    assert doubted(series) == {3000}


def test_equal_steps_of_the_warm_up_are_one_observation_and_others_are_told() -> None:
    series = made(8, steps=[0, 1, 2, 4, 8, 16, 32, 64])
    assert doubted({**series, 1: series[0], 2: series[0]}) == set()
    assert doubted({**series, 4: series[32]}) == {4}
    assert kinds({**series, 4: series[32]})[4] == "another-step"


@pytest.mark.parametrize(
    ("made", "shape"),
    [
        (lambda g: 0.02 * torch.randn(100, 64, generator=g), "normal"),
        (lambda g: 0.02 * (torch.rand(100, 64, generator=g) - 0.5), "uniform"),
        (lambda g: torch.randn(100, 64, generator=g).clamp(-2, 2).half(), "cut normal"),
        (lambda g: torch.linalg.qr(torch.randn(100, 64, generator=g))[0], "normal"),
        (lambda g: torch.zeros(9, 4), "zeros"),
        (lambda g: torch.randn(4, 4096, generator=g).bfloat16(), "normal"),
        (lambda g: torch.cat([torch.zeros(1, 64), torch.randn(60, 64, generator=g)]), "normal"),
    ],
)
def test_initialisations_look_like_one(made, shape: str) -> None:
    found = [describe_start(made(draw(seed))) for seed in range(20)]
    assert all(one.looks_initial for one in found)
    assert found[0].shape == shape


def test_trained_matrices_do_not() -> None:
    noise = torch.randn(100, 64, generator=draw(0))
    direction = torch.randn(100, 1, generator=draw(1)) @ torch.randn(1, 64, generator=draw(2))
    for trained in (noise + 0.5 * direction, noise + 1, noise * torch.linspace(0.3, 2, 100)[:, None], noise**3):
        assert not describe_start(trained).looks_initial


def test_a_real_training_raises_no_alarm_and_its_steps_exchanged_do(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["train", "nano.toml", "--set", "model.d_model=32", "--set", "model.heads=2", "--set", "model.d_ff=64",
             "--set", "training.steps=40", "--set", "training.warmup=5", "--set", "training.batch_size=8",
             "--set", "probes.tasks=[\"COPY\"]", "--set", "probes.score_examples=2", "--set",
             "probes.geometry_examples=2", "--checkpoints", "0-40:4", "--out", str(run), "-q"]  # fmt: skip
    assert cli(words) == 0
    assert cli(["audit", str(run), "--values", "-q"]) == 0
    folders = run / "checkpoints"
    names = sorted(folders.iterdir(), key=lambda path: int(path.name.removeprefix("step")))
    a, b = names[3], names[8]
    a.rename(folders / "other")
    b.rename(a)
    (folders / "other").rename(b)
    assert cli(["audit", str(run), "--values", "-q"]) == 1
