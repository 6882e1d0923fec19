"""Resampling and tests that claims share."""
