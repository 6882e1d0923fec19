"""Other people's results as runs."""
