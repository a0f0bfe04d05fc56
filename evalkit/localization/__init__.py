"""Segments in time, and boxes in key frames: readers of their files, and benchmarks made of them."""
