"""Steps 2 and 3 on a cluster."""
