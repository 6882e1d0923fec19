"""What a linear reader makes of states: states and next tokens in, held-out accuracies out (numpy, scikit-learn)."""
