"""Seconds of a step and of a checkpoint's measures, of each of the study's sizes, in every way of computing."""

from __future__ import annotations

from dataclasses import asdict

from pythiageo.config.options import overrides
from pythiageo.errors import MachineError
from pythiageo.estimate.study_cost import time_size
from pythiageo.study.sizes import SEEDS, SIZES
from tests.gpu.kit.options import parse
from tests.gpu.kit.results import Results


def main() -> None:
    """Price every size, the study's own way first, and the whole study at the end."""
    options = parse(__doc__)
    results = Results(options.out)
    sizes = ["nano"] if options.rehearse else list(SIZES)
    steps, sample = (2, 10) if options.rehearse else (60, 20)
    graphs = options.device != "cpu"
    ways = [("float32", graphs), ("bfloat16", graphs), ("float32", False), ("bfloat16", False)]
    for dtype, recorded in dict.fromkeys(ways):
        hours = 0.0
        for size in sizes:
            sets = {
                "model.size": size,
                "compute.device": options.device,
                "training.dtype": dtype,
                "training.cuda_graphs": recorded,
            }
            try:
                price = time_size(overrides(sets), steps, sample, expensive=False)
            except MachineError as error:
                results.add("price", size=size, dtype=dtype, cuda_graphs=recorded, error=str(error))
                continue
            hours += price.hours
            results.add("price", dtype=dtype, cuda_graphs=recorded, **asdict(price), hours=round(price.hours, 4))
        results.add("price", dtype=dtype, cuda_graphs=recorded, study_hours=round(len(SEEDS) * hours, 3), sizes=sizes)


if __name__ == "__main__":
    main()
