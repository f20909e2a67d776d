"""Step 2, first half: splits a model into a trunk and a head."""
