"""Runs beside one another, and beside published figures."""

from pythiageo.compare.compare import Comparison, compare, write_comparison
from pythiageo.compare.published import beside_published, published_sizes

__all__ = ["Comparison", "beside_published", "compare", "published_sizes", "write_comparison"]
