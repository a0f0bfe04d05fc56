"""Predictions that were made elsewhere, scored as a run's own."""
