"""The machine: cache folder, cores and memory, processes, progress."""
