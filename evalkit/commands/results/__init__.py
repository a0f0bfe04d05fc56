"""Commands that read, compare and publish results."""
