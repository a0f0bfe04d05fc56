"""`evalkit adapt`: trains an adapter on a task's train split and saves it in a folder that `ckpt=` accepts."""

from __future__ import annotations

from evalkit.config.config import Config
from evalkit.launch.processes import adapt


def main(config: Config) -> int:
    """0, after the folder was written.

    Raises:
        UserError: something in the configuration, the data or the checkpoint that the user can mend.
    """
    adapt(config)
    return 0
