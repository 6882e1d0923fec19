"""The figures and tables of arXiv 2602.15997 in their form for other data, each saying what it lacks."""

from pythiageo.figures.catalogue import paper_figures, paper_tables
from pythiageo.figures.spec import PaperFigure, PaperTable

__all__ = ["PaperFigure", "PaperTable", "paper_figures", "paper_tables"]
