"""Fits an adapter on training examples: its steps, by one process or several, what they cost, and the choice on val."""
