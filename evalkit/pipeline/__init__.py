"""One run: setup -> preflight -> fit -> predict (with controls) -> record."""
