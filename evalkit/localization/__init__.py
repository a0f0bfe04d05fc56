"""Localization in time and space: readers of annotation files, the tasks' protocols, and the heads that find segments."""
