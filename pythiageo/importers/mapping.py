"""How a tidy table becomes observations, as a TOML file says it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from pythiageo.config.fields import Regime
from pythiageo.validation import check_table, read_table

Column = Literal[
    "series", "step", "tokens", "task", "level", "layer", "site", "readout", "measure", "value", "stderr", "n"
]


class Mapping(BaseModel):
    """How a tidy table becomes observations: which column is which of ours, what it does not say, what is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    regime: Regime = "naturalistic"
    columns: dict[Column, str]
    """Our column to theirs."""
    constants: dict[Column, str | int | float] = {}
    """What every row has."""
    where: dict[str, str | int | list[str] | list[int]] = {}
    """Their column to the value, or values, of the rows that are kept."""
    rename: dict[Literal["measure", "task", "level"], dict[str, str]] = {}
    """Their names to ours."""
    scale: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Our measures to what their values are multiplied by: ``accuracy = 0.01`` where theirs are per cent."""
    step_unit: Annotated[int, Field(ge=1)] = 1
    """Steps that one of theirs stands for: 1000 where they count thousands."""
    tokens_per_step: Annotated[int, Field(ge=1)] | None = None
    tokens_per_step_of: dict[str, Annotated[int, Field(ge=1)]] = {}
    """The same of a series that has another batch size, by its name."""
    first_layer_is_embedding: bool = False
    """Their layer 0 is the embedding, and layer k the output of block k - 1."""
    last_layer_is_final_norm: bool = False
    """Their last layer is taken after the final LayerNorm, as the last of transformers' ``hidden_states`` is."""
    size: str | None = None
    seed: Annotated[int, Field(ge=0)] | None = None


def load_mapping(path: Path) -> Mapping:
    """Read a mapping file, a user's own or one that came with pythiageo.

    Raises:
        UserError: no such file, or not a mapping; file, key and what was expected are named.
    """
    return check_table(read_table(path, "mapping file", shipped=True), Mapping, path)
