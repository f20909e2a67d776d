"""Step 3: a Gaussian per class, from moments that merge."""
