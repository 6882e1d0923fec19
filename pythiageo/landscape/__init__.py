"""Loss in, numbers out: ranks of gradients, the Hessian's spectrum, local learning coefficients."""
