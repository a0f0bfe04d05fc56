"""Commands about this machine and what can be named here."""
