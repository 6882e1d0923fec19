"""The study's tasks, and how it sorts them."""

from __future__ import annotations

TASKS = ("COPY", "REV", "CMP", "PAR", "ADD", "MOD", "SORT", "MUL")
"""The eight algorithmic tasks: what is probed and trained on when a config names none."""
LEVELS = ("L1", "L2", "L3")
EASY = {
    "billa-v1": ("COPY", "REV", "CMP", "PAR"),
    "billa-v4": ("COPY", "REV", "CMP", "PAR", "SORT"),
    "pythiageo": ("COPY", "REV", "CMP", "PAR", "SORT"),
}
"""The tasks that a protocol calls easy. Version 4 of the study moves SORT to them."""
HARD = {name: tuple(task for task in TASKS if task not in easy) for name, easy in EASY.items()}
"""The others."""
HARD_IN_FIGURES = ("MOD", "ADD", "SORT", "MUL")
"""Version 1's hard tasks in the order of its figures."""
DIAGNOSTIC = (
    "syntactic-agreement",
    "analogies",
    "arithmetic-fewshot",
    "in-context-labels",
    "facts",
    "syllogisms",
    "running-text",
)
"""The seven sets for language models."""
