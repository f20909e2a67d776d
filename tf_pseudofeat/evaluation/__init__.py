"""Scores, comparisons, the guard, and decision thresholds."""
