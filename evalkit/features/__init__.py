"""Encode each clip once: forward pass, feature key, store, batches for training."""
