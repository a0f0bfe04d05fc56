"""Commands that encode, train and score, or estimate the cost."""
