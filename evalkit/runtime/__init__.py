"""The machine: cache folder, cores and memory, progress."""
