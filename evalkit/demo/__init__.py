"""The embedded checkpoint, and how it is trained (`make weights`)."""
