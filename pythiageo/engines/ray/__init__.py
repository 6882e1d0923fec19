"""The engine of several machines: a Ray cluster."""
