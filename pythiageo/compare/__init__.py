"""Runs beside one another, and beside published figures."""

from pythiageo.compare.compare import Comparison, compare, write_comparison
from pythiageo.compare.published import beside_published, published_sizes
from pythiageo.compare.variance import Variances, divide_variance

__all__ = [
    "Comparison",
    "Variances",
    "beside_published",
    "compare",
    "divide_variance",
    "published_sizes",
    "write_comparison",
]
