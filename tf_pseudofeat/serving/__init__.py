"""Step 6: the model as a SavedModel with named endpoints."""
