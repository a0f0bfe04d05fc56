"""What a run leaves: prediction rows, record and schema, re-scoring, comparison, a text table."""
