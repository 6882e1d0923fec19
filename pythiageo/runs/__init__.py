"""Config, run folder, the loop over checkpoints, resume. The room that wires the others together."""
