"""Runs in several processes, and several runs: on many devices, over many settings, of a whole paper."""
