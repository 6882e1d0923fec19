"""``pythiageo llc``."""

from __future__ import annotations

from typing import Annotated

import typer

from pythiageo.errors import EXIT_LOOK, EXIT_OK, UserError

app = typer.Typer(help="The local learning coefficient.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep ``calibrate`` a sub-command while it is the only one."""


@app.command()
def calibrate(
    target: Annotated[str, typer.Argument(help="Hub repository, folder of checkpoints or run folder.")],
    step: Annotated[int, typer.Option("--step", help="The checkpoint's training step.")],
    task: Annotated[str, typer.Option(help="The task whose loss is measured.")] = "ADD",
    setting: Annotated[str, typer.Option(help="billa, billa-beta or theory.")] = "theory",
    step_sizes: Annotated[str, typer.Option("--step-sizes", help="SGLD step sizes.")] = "1e-6,1e-5,1e-4",
    gammas: Annotated[str, typer.Option(help="Localisations.")] = "100,1000,10000",
    draws: Annotated[int, typer.Option(help="Draws a chain.", min=2)] = 200,
    burn_in: Annotated[int, typer.Option("--burn-in", help="Steps before the draws.", min=0)] = 100,
    chains: Annotated[int, typer.Option(min=1, help="Chains of each pair of settings.")] = 2,
    examples: Annotated[int, typer.Option(help="Examples of the task.", min=2)] = 100,
    parameters: Annotated[str, typer.Option(help="Names or patterns of the parameters, the rest frozen.")] = "*",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the chains.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the trials as JSON.")] = False,
) -> int:
    """Try step sizes and localisations on one checkpoint, and say which are sane.

    Exit code 1 when none is.

    Example: pythiageo llc calibrate outputs/demo-tasks --step 1200 --task ADD
    """
    from pythiageo.cli import display
    from pythiageo.runs.llc_calibration import Calibration, calibrate_checkpoint

    wanted = Calibration(
        target=target,
        step=step,
        task=task,
        setting=setting,
        step_sizes=_numbers(step_sizes, "--step-sizes"),
        gammas=_numbers(gammas, "--gammas"),
        draws=draws,
        burn_in=burn_in,
        chains=chains,
        examples=examples,
        parameters=tuple(parameters.split(",")),
        seed=seed,
    )
    with display.shown_progress([target], quiet) as report:
        trials = calibrate_checkpoint(wanted, report)
    if as_json:
        display.print_json([trial.as_json() for trial in trials])
    else:
        rows = [
            (
                f"{trial.gamma:g}",
                f"{trial.step_size:g}",
                "-" if trial.value is None else f"{trial.value:.4g} ± {trial.stderr:.2g}",
                "-" if trial.r_hat is None else f"{trial.r_hat:.3f}",
                "-" if trial.equipartition is None else f"{trial.equipartition:.2f}",
                "sane" if trial.sane else trial.reasons[0],
            )
            for trial in trials
        ]
        title = f"{target} step {step}, {task}: n_beta = {trials[0].n_beta:.4g}"
        header = ("gamma", "step size", "llc", "R-hat", "equipartition", "verdict")
        display.print_table(title, header, rows)
    return EXIT_OK if any(trial.sane for trial in trials) else EXIT_LOOK


def _numbers(text: str, option: str) -> list[float]:
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text!r}: expected numbers separated by commas, such as 1e-6,1e-5") from None
    return numbers
