"""Experiment trackers: csv, TensorBoard, Weights & Biases, MLflow, Trackio."""
