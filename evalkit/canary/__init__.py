"""Sanity checks of an encoder's input and output before anything is encoded."""
