"""Where a series can come from: one module a kind of place."""
