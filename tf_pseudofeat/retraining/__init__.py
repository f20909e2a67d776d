"""Steps 2 to 6 in one call, as a callback and as an estimator."""
