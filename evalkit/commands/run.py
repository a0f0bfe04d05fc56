"""`evalkit run task=NAME ckpt=ENCODER`: scores an encoder on a task."""

from __future__ import annotations

from evalkit.config.config import Config
from evalkit.launch.processes import run


def main(config: Config) -> int:
    """0, after the run's table was printed.

    Raises:
        UserError: something in the configuration, the data or the checkpoint that the user can mend.
    """
    run(config)
    return 0
