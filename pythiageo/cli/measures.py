"""``pythiageo measures``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pythiageo.cli.working import LOADING, working


def measures(
    readouts: Annotated[
        bool, typer.Option("--readouts", help="List the readouts instead: which rows a geometry measure is taken of.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> int:
    """List what can be measured: names, formulas, sources, needs, costs.

    Example: pythiageo measures --readouts
    """
    from pythiageo.cli import display

    with working(LOADING):
        listed = {"readouts": _readouts()} if readouts else _measures()
    if as_json:
        display.print_json(listed)
        return 0
    for room, entries in listed.items():
        shown = ("name", "formula", "rows", "unasked", "needs", "cost", "source")
        header = [column for column in shown if column in entries[0]]
        display.print_table(room, header, [[entry[column] for column in header] for entry in entries])
    if readouts:
        display.say_wrapped(
            "A readout is positions/centring: centred takes the mean row off first. Unasked are all that --readouts "
            "all takes; a rank at N rows, too, is --rows N."
        )
        display.say_next("analyze TARGET --readouts answer/centred,mean/centred")
    else:
        display.say_next("measures --readouts", "analyze TARGET --measures rankme,two_nn")
    return 0


def _readouts() -> list[dict[str, Any]]:
    from pythiageo.geometry.readout import BUT_SINKS, POSITIONS, READOUTS

    but = ", but sinks: first positions, and those whose norm lies far out (docs/words.md)"
    return [
        {
            "name": readout.name,
            "rows": POSITIONS[readout.positions.removesuffix(BUT_SINKS)] + but * readout.spares_sinks,
            "unasked": "no" if readout.spares_sinks else "yes",
        }
        for readout in READOUTS.values()
    ]


def _measures() -> dict[str, list[dict[str, Any]]]:
    from pythiageo.geometry.measure import load_measures
    from pythiageo.geometry.sinks import SINK_MEASURES
    from pythiageo.landscape.measures import LANDSCAPE_MEASURES
    from pythiageo.series.audit.weights import WEIGHT_MEASURES

    return {
        "geometry": [
            {
                "name": measure.name,
                "title": measure.title,
                "formula": measure.formula,
                "source": measure.source,
                "needs": measure.needs,
                "cost": measure.cost,
                "range": measure.range,
                "invariances": sorted(measure.invariances),
            }
            for measure in load_measures().values()
        ],
        "sinks": [
            {
                "name": measure.name,
                "title": measure.name.replace("_", " "),
                "formula": measure.formula,
                "source": measure.source,
                "needs": "attention patterns" if measure.name == "sink_rate" else "all states of a site",
                "cost": "plain passes over 50 examples" if measure.name == "sink_rate" else "O(n d)",
                "invariances": ["scale", "order"],
            }
            for measure in SINK_MEASURES
        ],
        "linear probe": [
            {
                "name": "linear_probe",
                "title": "linear probe of the next token",
                "formula": "held-out accuracy of logistic regression, beside its controls (docs/scores.md)",
                "source": "Alain and Bengio 2016; Hewitt and Liang 2019",
                "needs": "states at answer positions",
                "cost": "two fits a site and split",
                "invariances": ["scale", "rotation"],
            }
        ],
        "landscape": [
            {
                "name": measure.name,
                "title": measure.title,
                "formula": measure.formula,
                "source": measure.source,
                "needs": measure.needs,
                "cost": measure.cost,
                "invariances": list(measure.invariances),
            }
            for measure in LANDSCAPE_MEASURES.values()
        ],
        "weights": [
            {
                "name": measure.name,
                "title": measure.name.replace("_", " "),
                "formula": measure.formula,
                "source": "pythiageo audit REPO --values --out audit.json, then pythiageo import",
                "needs": "some rows of a matrix",
                "cost": "no checkpoint is fetched",
                "invariances": ["order"],
            }
            for measure in WEIGHT_MEASURES
        ],
    }
