"""Tensors in, numbers out: readouts of states, their spectra, and the measures of a spectrum."""
