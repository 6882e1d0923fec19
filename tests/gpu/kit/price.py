"""Seconds of a step and of a checkpoint's measures, of each of the study's sizes, in every way of computing."""

from __future__ import annotations

from dataclasses import asdict, replace

from pythiageo.config.options import overrides
from pythiageo.errors import MachineError
from pythiageo.estimate.study_cost import Price, time_size, time_step
from pythiageo.study.sizes import SEEDS, SIZES
from tests.gpu.kit.options import parse
from tests.gpu.kit.results import Results


def main() -> None:
    """Price every size, the study's own way first."""
    options = parse(__doc__)
    results = Results(options.out)
    sizes = ["nano"] if options.rehearse else list(SIZES)
    steps, sample = (2, 10) if options.rehearse else (60, 20)
    graphs = options.device != "cpu"
    prices: dict[str, Price] = {}
    for dtype in ("float32", "bfloat16"):
        hours = 0.0
        for size in sizes:
            sets = overrides({
                "model.size": size,
                "compute.device": options.device,
                "training.dtype": dtype,
            })  # fmt: skip
            try:
                if dtype == "float32":
                    prices[size] = time_size(sets, steps, sample, expensive=False)
                else:  # measures are taken in float32 all the same
                    prices[size] = replace(prices[size], step=time_step(sets, steps))
            except (MachineError, KeyError) as error:
                results.add("price", size=size, dtype=dtype, cuda_graphs=graphs, error=str(error))
                continue
            hours += prices[size].hours
            found = asdict(prices[size])
            results.add("price", dtype=dtype, cuda_graphs=graphs, **found, hours=round(prices[size].hours, 4))
        results.add("price", dtype=dtype, cuda_graphs=graphs, study_hours=round(len(SEEDS) * hours, 3), sizes=sizes)
    for size in sizes if graphs else []:
        eager = time_step(
            overrides({"model.size": size, "compute.device": options.device, "training.cuda_graphs": False}), 10
        )
        results.add("price", size=size, dtype="float32", cuda_graphs=False, step=eager)


if __name__ == "__main__":
    main()
