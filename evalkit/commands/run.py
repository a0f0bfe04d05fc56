"""`evalkit run task=NAME ckpt=ENCODER`: scores an encoder on a task; with `suite=` on every task of a paper."""

from __future__ import annotations


def main(words: list[str]) -> int:
    """The exit code, after the run's table was printed.

    Raises:
        UserError: something in the configuration, the data or the checkpoint that the user can mend.
    """
    from evalkit.config import help, parse

    if {"--help", "-h"} & set(words):
        return help.print_keys("run", words)
    if any(word.startswith("suite=") for word in words):
        from evalkit.pipeline import suite

        return suite.run(words)
    config = parse.resolve("run", words)  # before torch loads: a mistyped key is reported at once
    from evalkit.pipeline.runner import run

    run(config)
    return 0
