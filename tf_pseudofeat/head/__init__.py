"""Step 5: the layers after the cut are trained again, or adjusted without training."""
