"""What is asked for of the loss landscape: which measures, at which steps, and the settings of each."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from pythiageo.config.fields import Count, Steps, Table


class HessianConfig(Table):
    """How the Hessian is measured."""

    k: Count = 5
    """Largest eigenvalues."""
    probes: Annotated[int, Field(ge=2)] = 10
    """Random vectors for the trace."""
    keep_graph: bool = True
    """Keep the gradient's graph: twice as fast; without it, far less memory."""


class LlcConfig(Table):
    """How the local learning coefficient is estimated: named settings, any of their values replaced."""

    setting: str = "billa"
    """``billa`` (the study's, n_beta = 1), ``billa-beta`` (beta = 1) or ``theory`` (n_beta = n / log n)."""
    n_beta: Annotated[float, Field(gt=0)] | None = None
    """Inverse temperature times the number of examples; or ``beta``."""
    beta: Annotated[float, Field(gt=0)] | None = None
    """Inverse temperature: ``n_beta`` over the number of examples."""
    gamma: Annotated[float, Field(ge=0)] | None = None
    """Localisation: the inverse variance of a Gaussian prior around the weights."""
    step: Annotated[float, Field(gt=0)] | None = None
    """Step size of the chains."""
    draws: Annotated[int, Field(ge=2)] | None = None
    """Draws of a chain that are averaged."""
    burn_in: Annotated[int, Field(ge=0)] | None = None
    """Draws before them that are not."""
    chains: Count | None = None
    """Chains; from two on they are compared."""
    batch: Count | None = None
    """Examples a draw, drawn anew without replacement."""
    rmsprop: bool | None = None
    """Whether steps are preconditioned as by RMSProp."""
    baseline: str | None = None
    """What the loss is compared with: ``same-batch`` (at the start, on the draw's own examples) or ``full-batch``."""


class LandscapeConfig(Table):
    """Which landscape measures are taken, and of what. They cost hours for a large model: few steps, one task."""

    measures: tuple[str, ...] = ()
    """Names that ``pythiageo measures`` lists under landscape."""
    steps: Steps = "log:5"
    """Which of the run's steps, as for ``steps``."""
    tasks: tuple[str, ...] = ()
    """Which of the run's tasks, on their geometry probe set; empty: the first one."""
    examples: Count = 200
    """Examples of it, at most."""
    parameters: tuple[str, ...] = ("*",)
    """Names or patterns of the parameters; the rest is frozen. Recorded in every row."""
    per_layer: bool = False
    """Take every measure once a block, restricted to its parameters."""
    batch: Count = 10
    """Examples a batch of the gradient covariance."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of random vectors, batches and chains."""
    hessian: HessianConfig = HessianConfig()
    llc: LlcConfig = LlcConfig()

    @model_validator(mode="after")
    def _one_restriction(self) -> LandscapeConfig:
        if self.per_layer and self.parameters != ("*",):
            raise ValueError("per_layer chooses the parameters, so parameters must be left out")
        return self
