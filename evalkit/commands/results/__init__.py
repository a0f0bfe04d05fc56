"""Commands that read results, and bring them to others."""
