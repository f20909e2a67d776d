"""Step 2, first half: a model is cut at a layer, into a trunk and a head."""
