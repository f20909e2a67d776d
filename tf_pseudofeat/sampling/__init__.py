"""Step 4: numbers of pseudo-features, and the training stream."""
