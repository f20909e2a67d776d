"""Step 2, second half: the trunk's features, in memory or on disk."""
