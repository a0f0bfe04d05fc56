"""Localization in time and space: readers of annotation files, tasks' protocols, and heads that find segments."""
