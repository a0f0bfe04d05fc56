"""Readers of the published files of action recognition, one for each layout."""
