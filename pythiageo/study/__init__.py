"""What the study fixed: tasks, classes, sizes, seeds, protocols, published figures."""
