"""The data that people train with, as `fit` and `predict` would read them."""
