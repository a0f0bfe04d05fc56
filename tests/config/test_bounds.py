"""Bounds of numbers stand in the annotations: those of every shipped key, and none for a stranger's."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Interval, Le, Lt

from evalkit.config.keys import adapter_keys, known_keys
from evalkit.config.parse import resolve
from evalkit.config.values import OutOfBounds, convert, type_name
from evalkit.errors import UserError

TRAINING = ["lr above 0", "batch_size above 0", "epochs of at least 0", "weight_decay of at least 0"]
READER = ["stride above 0", "latents above 0", "depth above 0"]
SHARE = "from 0 to below 1"
# Per adapter, each key with its bound.
ADAPTERS = {
    "attentive_classifier": ["heads of at least 0", *TRAINING],
    "captioner": [*READER, "vocabulary above 0", "max_tokens above 0", "beams above 0", *TRAINING],
    "contrastive": [f"mask_ratio {SHARE}", "temperature above 0", *TRAINING],
    "finetune": ["heads of at least 0", f"dropout {SHARE}", f"label_smoothing {SHARE}", *TRAINING],
    "knn": ["k above 0", "temperature above 0"],
    "logistic": ["c above 0"],
    "masked_distillation": [
        *(f"mask_ratio {SHARE}", "temperature above 0", "decoder_width of at least 6", "decoder_depth above 0"),
        *("local_weight of at least 0", "global_weight of at least 0", "contrastive_weight of at least 0", *TRAINING),
    ],
    "multiple_choice": [*READER, *TRAINING],
    "probe": [
        *("heads of at least 0", "token_grid of at least 0", f"dropout {SHARE}", f"label_smoothing {SHARE}"),
        *TRAINING,
    ],
    "retrieval": ["temperature above 0", *TRAINING],
    "ridge": ["alpha above 0"],
    "segments_to_lm": ["max_tokens above 0"],
}
# Per task (empty for the keys of every run), the same.
OTHERS = {
    "": [
        *("batch above 0", "time_limit above 0", "clip.frames above 0", "clip.fps above 0", "clip.stride above 0"),
        *("clip.clips above 0", "clip.size above 0", "seed of at least 0", "workers of at least 0"),
        *("threads of at least 0", "encoder.heads of at least 0", "trainer.max_minutes of at least 0"),
        *("trainer.views of at least 0", "trainer.shots of at least 0"),
        "trainer.share above 0 to 1",
    ],
    "ava": ["data.threshold from 0 to 1", "data.start of at least 0"],
    "chimpact": ["data.frames above 0"],
}
KEYS = [(adapter, *bound.split(" ", 1)) for adapter, bounds in ADAPTERS.items() for bound in bounds]
GENERAL = [(task, *bound.split(" ", 1)) for task, bounds in OTHERS.items() for bound in bounds]

STRANGER = '''
from __future__ import annotations

def task(k: int = 0, depth: int = 0, size: float = -1.0, dropout: float = 5.0, seed: int = -3):
    """Has evalkit's own names for keys of its own.

    Args:
        k: any number.
        depth: any number.
        size: any number.
        dropout: any number.
        seed: any number.
    """
'''
BASE = '''
from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt
from evalkit.api import AdapterSettings

Rate = Annotated[float, Gt(0)]


@dataclass(frozen=True)
class Shared(AdapterSettings):
    """Of several adapters.

    Attributes:
        lr: the step size.
    """

    lr: Rate = 1e-3
'''
HEAD = '''
from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Interval
from shared_settings import Shared


@dataclass(frozen=True)
class Settings(Shared):
    """Of this one.

    Attributes:
        drop: share of the inputs
            that is zeroed.
        lm: a language model.
    """

    STACKABLE: ClassVar[tuple[str, ...]] = ("lr",)
    drop: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    lm: str = ""


def adapter(encoder, task, points):
    """Takes its settings as a dataclass."""
'''


def refusals(kind: Any) -> dict[str, str]:
    """What is said of some numbers, of those that the type refuses for a bound."""
    found = {}
    for text in ("-1", "0", "1", "4294967296"):
        try:
            convert(text, kind)
        except OutOfBounds as error:
            found[text] = str(error).removeprefix("a whole number ").removeprefix("a number ")
    return found


def expected(bound: str) -> dict[str, str]:
    broken = {
        **{"above 0": ("-1", "0"), "of at least 0": ("-1",), "of at least 6": ("-1", "0", "1")},
        **{SHARE: ("-1", "1", "4294967296"), "from 0 to 1": ("-1", "4294967296")},
        "above 0 to 1": ("-1", "0", "4294967296"),
    }
    return dict.fromkeys(broken[bound], bound)


@pytest.mark.parametrize(("adapter", "name", "bound"), KEYS)
def test_every_bound_of_an_adapter_refuses(adapter: str, name: str, bound: str) -> None:
    assert refusals(adapter_keys(adapter)[f"adapter.{name}"].type) == expected(bound)


@pytest.mark.parametrize(("task", "name", "bound"), GENERAL)
def test_every_other_bound_refuses(task: str, name: str, bound: str) -> None:
    seeds = {"4294967296": "below 2 to the 32nd"} if name == "seed" else {}
    assert refusals(known_keys("run", task)[name].type) == expected(bound) | seeds


@pytest.mark.parametrize("word", ["k=0", "k=-7", "depth=0", "size=-1", "dropout=5", "seed=-1", "seed=4294967296"])
def test_a_strangers_key_has_the_bounds_that_its_own_annotation_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_task.py").write_text(STRANGER)
    name, _, value = word.partition("=")
    assert resolve("check", ["task=./my_task.py", f"data.{word}"]).data == {name: float(value)}


def test_keys_of_a_dataclass_of_settings_have_the_bounds_and_meanings_of_its_bases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, source in {"shared_settings.py": BASE, "my_head.py": HEAD, "my_task.py": STRANGER}.items():
        Path(name).write_text(source)
    keys = adapter_keys("./my_head.py")
    assert {name: (key.default, key.meaning) for name, key in keys.items()} == {
        "adapter.lr": (1e-3, "the step size."),
        "adapter.drop": (0.0, "share of the inputs that is zeroed."),
        "adapter.lm": ("", "a language model."),
    }
    words = ["task=./my_task.py", "ckpt=demo", "adapter=./my_head.py"]
    assert resolve("run", [*words, "adapter.drop=0.5", "lm=tiny"]).adapter == {"drop": 0.5, "lm": "tiny"}
    for word, message in {"lr=0": "a number above 0", "drop=1": f"a number {SHARE}"}.items():
        with pytest.raises(UserError) as caught:
            resolve("run", [*words, f"adapter.{word}"])
        assert str(caught.value) == f"adapter.{word}: expected {message}"


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ("0", Annotated[int, Gt(0)] | Literal["auto"], "a whole number above 0"),
        ("0", Annotated[int | None, Gt(0)], "a whole number above 0"),
        ("2,0", tuple[Annotated[int, Gt(0)], ...], "a whole number above 0"),
        ("1.5", Annotated[float, Le(1)], "a number of at most 1"),
        ("1", Annotated[float, Lt(0.5)], "a number below 0.5"),
        ("2", Annotated[int, Interval(gt=0, le=1)], "a whole number above 0 to 1"),
        ("-0.1", Annotated[float, Interval(ge=0, lt=1)], f"a number {SHARE}"),
        ("1", Annotated[float, Interval(ge=0, lt=1)], f"a number {SHARE}"),
    ],
)
def test_a_broken_bound_is_told_in_words(value: str, kind: Any, message: str) -> None:
    with pytest.raises(OutOfBounds) as caught:
        convert(value, kind)
    assert str(caught.value) == message


def test_what_is_no_number_has_no_bound_and_other_metadata_is_left_aside() -> None:
    assert convert("none", Annotated[int | None, Gt(0)]) is None
    assert convert("auto", Annotated[int, Gt(0)] | Literal["auto"]) == "auto"
    assert convert("true", Annotated[bool, Ge(2)]) is True
    assert convert("0", Annotated[int, "of frames"]) == 0
    assert type_name(Annotated[int, Gt(0)] | None) == "a whole number or none"


def test_a_union_is_tried_to_its_end_before_a_bound_is_called_broken() -> None:
    either = Annotated[int, Gt(10)] | Annotated[float, Lt(0)] | Literal["auto"]
    assert convert("11", either) == 11 and convert("-1.5", either) == -1.5 and convert("auto", either) == "auto"
    assert convert("-1", either) == -1.0  # the first bound does not hold, the second does
    with pytest.raises(OutOfBounds, match=r"^a whole number above 10 or a number below 0$"):
        convert("5", either)
    with pytest.raises(OutOfBounds):  # text takes everything, and hides no bound
        convert("-1", Annotated[int, Ge(0)] | str)


@pytest.mark.parametrize(
    ("word", "most"),
    [
        ("workers=1000000000000", "1,024"),
        ("time_limit=1e300", "1,000,000"),
        ("batch=9999999999", "1,000,000"),
        ("clip.frames=10001", "10,000"),
        ("trainer.max_minutes=1e9", "1,000,000"),
        ("trainer.shots=99999999999999999999", "4,611,686,018,427,387,904"),
    ],
)
def test_a_number_that_no_machine_has_is_refused(word: str, most: str) -> None:
    with pytest.raises(UserError, match=rf"^{word.partition('=')[0]}=.*: expected at most {most}$"):
        resolve("run", ["task=egoschema", "ckpt=demo", word])
