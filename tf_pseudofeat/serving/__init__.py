"""Step 6: exports the model as a SavedModel with named endpoints."""
