"""Commands that encode, train and score, or say what that would take."""
