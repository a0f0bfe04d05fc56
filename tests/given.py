"""Tasks made by name, and the real files that lie beside the project."""

from pathlib import Path
from typing import Any

import pytest

from evalkit import plugins
from evalkit.api import Task, UserError

DATA = Path(__file__).parents[2] / "shared" / "data"
ANNOTATIONS = DATA / "annotations"
# The data sets' own files, whose licences keep them out of the repository; each reader is also tested on small samples.
real = pytest.mark.skipif(
    not DATA.is_dir(), reason="needs shared/data: real files kept beside the project, not part of it"
)


def make(name: str, *root: Path, **settings: Any) -> Task:
    """The task of this name; of a root where one is given."""
    made = plugins.factory("task", name)(*root, **settings)
    assert isinstance(made, Task)
    return made


def refusal(name: str, *root: Path, **settings: Any) -> str:
    """Why there is no such task, which is one line."""
    with pytest.raises(UserError) as caught:
        make(name, *root, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)
