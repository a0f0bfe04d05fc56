"""A video file -> uint8 clips: timeline, decode, sampling, crop, augmentation, worker processes."""
