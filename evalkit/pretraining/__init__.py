"""Pretraining of video encoders: which tokens are left out, decoders that predict what was there, and their losses."""
