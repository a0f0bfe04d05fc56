"""Commands about this machine and the available names."""
