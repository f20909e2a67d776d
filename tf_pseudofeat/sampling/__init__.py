"""Step 4: how many pseudo-features, and the stream of real and drawn ones."""
