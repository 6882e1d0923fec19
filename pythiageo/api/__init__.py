"""pythiageo from Python: open a run, measure a model in memory, measure while somebody else's training runs."""
