"""`evalkit run task=NAME ckpt=ENCODER`: evaluates an encoder on a task."""

from __future__ import annotations

from evalkit.config.config import Config
from evalkit.launch.processes import run
from evalkit.results.run_folder import RESULT
from evalkit.runtime import notes, ranks


def main(config: Config) -> int:
    """0, after the run's table was printed and where its result is; with quiet=true, that alone.

    Raises:
        UserError: something in the configuration, the data or the checkpoint that the user can mend.
    """
    folder = run(config, quiet=not notes.are_shown())
    if not notes.are_shown() and ranks.here().first:
        print(folder / RESULT)
    return 0
