"""Names that tables, hooks and commands share."""

from __future__ import annotations

FINAL_NORM = "ln_final.hook_out"
"""Hook name of the output of the final LayerNorm."""
BLOCK_END = ".hook_resid_post"
"""What the hook name of a block's output ends with."""
LAST_BLOCK = "last-block"
"""Word for the output of a run's last block, whatever its index, before the final LayerNorm."""
FINAL_LN = "final-ln"
"""Word for the output of the final LayerNorm."""
READOUT = "answer/centred"
"""The readout that events, claims and pages take where a run has it."""
RANKME, COVARIANCE_RANK = "rankme", "covariance_effective_rank"
"""The rank of sigma, and that of sigma^2 which the study's floors fit."""
