"""Step 2, second half: extracts features to memory or to disk."""
