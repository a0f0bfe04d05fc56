"""What `evalkit init` writes: working files, in which own_encoder, own_task and own_adapter stand for the name."""
