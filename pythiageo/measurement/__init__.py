"""One checkpoint in, rows out: the one path from a model to the observation table."""
