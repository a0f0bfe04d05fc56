"""Causal language models, and the module that lets one read an encoder's tokens."""
