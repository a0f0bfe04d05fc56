"""Metrics of text: captions, paragraphs, dense captions and open answers, each by the rule that its name says.

One module per rule. Each score function is found by its name, such as `evalkit.metrics:captions`, and
follows the contract of evalkit/metrics/classification.py.
"""
