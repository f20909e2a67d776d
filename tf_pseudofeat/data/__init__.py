"""Training data, read as `fit` and `predict` read them."""
