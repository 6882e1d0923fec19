"""Seconds of a step and of a checkpoint's measures, of each of the study's sizes, in every way of computing."""

from __future__ import annotations

from dataclasses import asdict, replace

from pythiageo.config.options import overrides
from pythiageo.errors import MachineError
from pythiageo.estimate.study_cost import time_size, time_step
from pythiageo.study.sizes import SEEDS, SIZES
from tests.gpu.kit.options import parse
from tests.gpu.kit.results import Results

DTYPES = ("float32", "bfloat16")


def main() -> None:
    """Price every size: first the steps of all, which take seconds, then measures, the smallest size first."""
    options = parse(__doc__)
    results = Results(options.out)
    sizes = ["nano"] if options.rehearse else list(SIZES)
    steps, sample = (2, 10) if options.rehearse else (40, 20)
    graphs = options.device != "cpu"
    found: dict[tuple[str, str], float] = {}

    def sets(size: str, dtype: str, graphs: bool = graphs) -> list[str]:
        asked: dict[str, object] = {
            "model.size": size, "compute.device": options.device, "training.dtype": dtype,
            "training.cuda_graphs": graphs,
        }  # fmt: skip
        return overrides(asked)

    for size in sizes:
        for dtype in DTYPES:
            try:
                found[size, dtype] = time_step(sets(size, dtype), steps)
            except MachineError as error:
                results.add("price", size=size, dtype=dtype, cuda_graphs=graphs, error=str(error))
                continue
            results.add("price", size=size, dtype=dtype, cuda_graphs=graphs, step=found[size, dtype])
    hours: dict[str, dict[str, float]] = {dtype: {} for dtype in DTYPES}
    for size in sizes:
        try:  # measures are taken in float32, whatever the steps
            priced = time_size(sets(size, "float32"), 1, sample, expensive=False)
        except MachineError as error:
            results.add("price", size=size, measures=True, error=str(error))
            continue
        for dtype in DTYPES:
            if (size, dtype) in found:
                price = replace(priced, step=found[size, dtype])
                hours[dtype][size] = price.hours
                results.add("price", dtype=dtype, cuda_graphs=graphs, **asdict(price), hours=round(price.hours, 4))
    for dtype, each in hours.items():
        total = round(len(SEEDS) * sum(each.values()), 3)
        results.add("price", dtype=dtype, cuda_graphs=graphs, study_hours=total, sizes=list(each))
    for size in sizes if graphs else []:
        eager = time_step(sets(size, "float32", graphs=False), 10)
        results.add("price", size=size, dtype="float32", cuda_graphs=False, step=eager)


if __name__ == "__main__":
    main()
