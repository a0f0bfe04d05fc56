"""Features in files that other programs read and write: the format, and an encoder that looks its output up there."""
