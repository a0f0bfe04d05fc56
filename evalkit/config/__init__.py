"""Command-line overrides and yaml -> one checked Config: options, keys from signatures, parsing, values."""
