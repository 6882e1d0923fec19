"""Talking to the Hub: requests, retries, downloads, and a Hub on this machine for tests."""
