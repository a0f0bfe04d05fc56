"""The mini world: generated videos of colored shapes, small enough to learn and score on two CPU cores.

`world` says what happens, `film` shows it, `language` says it in words.
"""
