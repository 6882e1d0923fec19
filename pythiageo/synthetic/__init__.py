"""Small transformers trained here: sizes, models, batches, corpus and the optimiser loop."""
