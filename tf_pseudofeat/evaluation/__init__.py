"""What a classifier gets right, and whether a change of it is more than chance."""
