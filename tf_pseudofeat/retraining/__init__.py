"""Steps 2 to 6 as a function, a callback and an estimator."""
