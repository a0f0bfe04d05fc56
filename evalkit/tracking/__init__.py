"""Trackers of experiments beside the record: csv, TensorBoard, Weights & Biases, MLflow, Trackio."""
