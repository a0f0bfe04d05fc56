"""Text metrics: captions, paragraphs, dense captions and open answers, one module per rule.

A score function is named as `evalkit.metrics:captions` and follows the contract of evalkit/metrics/classification.py.
"""
