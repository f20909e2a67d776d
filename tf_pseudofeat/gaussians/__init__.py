"""Step 3: Gaussians of the classes, from moments that can be merged."""
