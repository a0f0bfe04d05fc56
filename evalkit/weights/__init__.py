"""Weights on disk: read safely and loaded strictly; Hugging Face folders, presets, trained adapters."""
