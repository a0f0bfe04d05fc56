"""The folder is the registry: finds tasks, adapters and encoders by name, and loads the one that is asked for."""

from __future__ import annotations

import functools
import gc
import hashlib
import importlib
import importlib.util
import inspect
import os
import shlex
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import evalkit
from evalkit.errors import UserError, among, letters, nearest, one_line, suggest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Kind = Literal["task", "adapter", "encoder"]

# What the field calls tasks and adapters beside their names here, by its letters and digits, and the words for it.
CALLED: dict[str, dict[str, str]] = {
    "task": {
        **{f"k{count}": f"task=kinetics{count}" for count in (400, 600, 700)},
        **dict.fromkeys(
            ("sthv2", "sthsthv2", "somethingv2", "somethingsomethingv2", "20bnsomethingsomethingv2"), "task=ssv2"
        ),
        **dict.fromkeys(("somethingsomething", "something", "sthsth", "ss2"), "task=ssv2"),
        **dict.fromkeys(("somethingsomethingv1", "ssv1"), "task=sthv1"),
        **dict.fromkeys(("mit", "momentsintimev1"), "task=moments_in_time"),
        **dict.fromkeys(("ek100", "epic", "epickitchens100", "epic100"), "task=epic_kitchens"),
        **dict.fromkeys(("anet", "activitynet13"), "task=activitynet"),
        **dict.fromkeys(("ego", "egoschemasubset"), "task=egoschema"),
        **dict.fromkeys(("in1k", "imagenet1k", "ilsvrc"), "task=imagenet"),
        **dict.fromkeys(("thumos", "thumos14"), "task=thumos14_tal"),
        **dict.fromkeys(("custom", "own", "classification", "videofolder", "imagefolder"), "task=folder"),
        "next": "task=nextqa",
    },
    "adapter": {
        **dict.fromkeys(("linear", "linearprobe", "linearhead", "lp"), "adapter=probe adapter.head=linear"),
        **dict.fromkeys(("attentive", "attentiveprobe", "attention"), "adapter=probe adapter.head=attentive"),
        **dict.fromkeys(("mlap", "map"), "adapter=probe adapter.head=mlap"),
        **dict.fromkeys(("lora", "peft"), "adapter=finetune adapter.tune=lora"),
        **dict.fromkeys(("full", "finetuning", "endtoend"), "adapter=finetune"),
        **dict.fromkeys(("logreg", "logisticregression", "sklearn"), "adapter=logistic"),
        **dict.fromkeys(("nearestneighbor", "nearestneighbors", "nn"), "adapter=knn"),
        **dict.fromkeys(("clip", "zeroshotclassification"), "adapter=zero_shot"),
        **dict.fromkeys(("caption", "captioning"), "adapter=captioner"),
        **dict.fromkeys(("mcq", "qa", "mc"), "adapter=multiple_choice"),
    },
}


def names(kind: Kind) -> dict[str, str]:
    """Every plug-in of a kind by name, sorted, with where it comes from: a file, or an entry point's `module:function`.

    Raises:
        UserError: two plug-ins have one name.
    """
    return {name: _origin(plug_in) for name, plug_in in sorted(_found(kind).items())}


def factory(kind: Kind, name: str) -> Callable[..., Any]:
    """The plug-in's function, imported: `task`, `adapter` or `encoder`, as its kind is called.

    Args:
        kind: what is looked for.
        name: a name from `names(kind)`, or the path of a file, which ends in .py.

    Raises:
        UserError: there is no such plug-in, its file does not import, or the file lacks the function.
    """
    return module_and_factory(kind, name)[1]


def module_and_factory(kind: Kind, name: str) -> tuple[ModuleType, Callable[..., Any]]:
    """The plug-in's module, which may state more (a task's `ADAPTER`), and its function; see `factory`."""
    plug_in = _find(kind, name)
    file = None if not isinstance(plug_in, Path) else plug_in
    collecting = gc.isenabled()
    gc.disable()  # modules in the making are no garbage: looking takes a sixth of the import of torch and Lightning
    try:
        if not isinstance(plug_in, Path):
            module, attribute = importlib.import_module(plug_in.module), plug_in.attr or kind
        elif _is_path(name):
            module, attribute = _load(kind, plug_in), kind
        else:
            module, attribute = importlib.import_module(f"evalkit.{kind}s.{name}"), kind
    except UserError:
        raise
    except Exception as error:  # whatever the plug-in's own code raises, at any depth
        raise UserError(_broken(kind, name, file, error)) from error
    finally:
        if collecting:
            gc.enable()
    function = getattr(module, attribute, None)
    if not callable(function):
        near = nearest(attribute, [name for name, value in vars(module).items() if callable(value)])
        mend = f"; call {near!r} so" if near else ""
        raise UserError(f"{kind} {name!r} is broken: {_origin(plug_in)}: no function named {attribute!r}{mend}")
    return module, function


def shape_settings(family: str) -> dict[str, inspect.Parameter]:
    """The settings of a family of encoders that words can state, by name: those of its function with a plain type."""
    parameters = inspect.signature(factory("encoder", family)).parameters.values()
    named = [one for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY]
    return {one.name: one for one in named if "dict" not in str(one.annotation)}


def names_function(word: str) -> bool:
    """Whether a word reads `package.module:function`, which is code to import; nothing is imported to tell."""
    module, _, attribute = word.partition(":")
    if module in ("random", "features") or module in _found("encoder"):  # timm:NAME is a family's own model
        return False
    return all(part.isidentifier() for part in [*module.split("."), attribute])


def names_own_encoder(word: str) -> bool:
    """Whether `own_encoder` would give a function for a word; nothing is imported to tell."""
    return names_function(word) or not isinstance(_found("encoder").get(word, Path()), Path)


def own_encoder(ckpt: str, key: str = "ckpt") -> Callable[..., Any] | None:
    """The function of the user's own encoder, from `package.module:function` or an entry point's name; else None.

    It is imported, so the word must be the user's own: see `evalkit.load_encoder` for words from files.

    Args:
        ckpt: the word.
        key: that it is given by, for errors.

    Raises:
        UserError: its module does not import, or has no such function.
    """
    if not names_function(ckpt):
        plug_in = _found("encoder").get(ckpt)
        return factory("encoder", ckpt) if plug_in and not isinstance(plug_in, Path) else None
    module, _, attribute = ckpt.partition(":")
    if module.endswith(".py"):
        raise UserError(
            f"{key}={ckpt}: a function of your own is named without .py: {key}={_module_of(module)}:{attribute}"
        )
    sys.path.append(os.getcwd())  # the command's own path starts at its folder, not at the user's
    try:
        imported = importlib.import_module(module)
        function = getattr(imported, attribute, None)
        if function is None:
            functions = [name for name, value in vars(imported).items() if callable(value)]
            missing = f"AttributeError: module {module!r} has no attribute {attribute!r}"
            raise UserError(f"{key}={ckpt}: {missing}.{suggest(attribute, functions)}")
    except UserError:
        raise
    except Exception as error:  # whatever the module's own code raises
        raise UserError(f"{key}={ckpt}: {one_line(error)}") from error
    finally:
        sys.path.pop()
    if not callable(function):
        raise UserError(f"{key}={ckpt}: {attribute} is a {type(function).__name__}; wanted a function")
    return function  # type: ignore[no-any-return]


def hint_of_own_code(word: str, key: str = "ckpt") -> str:
    """A sentence that says how to name a function in the file of the user's that a word means; else nothing.

    The word may be the file, with or without .py, its module, or one of them and the function, with a dot or a colon
    between them.
    """
    if word.endswith("()") and names_function(word[:-2]) and ".py:" not in word:
        return f" A function is named without brackets: {key}={word[:-2]}"
    word = word.removesuffix("()")
    module, _, function = word.rpartition(".")
    path, _, after = word.partition(":")
    places = {word: "", f"{word}.py": "", f"{word.replace('.', '/')}.py": ""}
    places |= {f"{module.replace('.', '/')}.py": function} if module and function != "py" else {}
    places |= {path: after, f"{path}.py": after} if after else {}
    for place, wanted in places.items():
        file = Path(place).expanduser()
        if file.suffix == ".py" and file.is_file():
            functions, classes = _defined_in(file)
            meant = nearest(wanted, [*functions, *classes]) or ""
            names = [meant] if meant else functions or classes
            attribute = names[0] if len(names) == 1 else "FUNCTION"
            others = f", one of {', '.join(names)}" if len(names) > 1 else ""
            here = Path(os.path.relpath(file))
            elsewhere = f", with PYTHONPATH={shlex.quote(str(here.parent))} before evalkit" * (".." in here.parts)
            return f" {file} is code: name its function, {key}={_module_of(str(here))}:{attribute}{others}{elsewhere}"
    return ""


def _defined_in(file: Path) -> tuple[list[str], list[str]]:
    """Names of the public functions and classes at the top of a file, of which nothing is run.

    None of a file that does not parse.
    """
    import ast

    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return [], []
    functions, classes = (
        [node.name for node in tree.body if isinstance(node, kind) and not node.name.startswith("_")]
        for kind in (ast.FunctionDef, ast.ClassDef)
    )
    return functions, classes


def _module_of(file: str) -> str:
    """The name by which a file under the current folder is imported; of another, its own name alone."""
    path = Path(file.removesuffix(".py"))
    return ".".join(path.parts) if not path.is_absolute() and ".." not in path.parts else path.name


def summary(kind: Kind, name: str) -> str:
    """The first line of the plug-in function's docstring, read without importing it.

    The module's docstring stands in where the function has none; a file that does not parse says so instead.
    """
    import ast

    plug_in = _find(kind, name)
    if isinstance(plug_in, Path):
        file: str | None = str(plug_in)
    else:
        try:
            spec = importlib.util.find_spec(plug_in.module)
        except Exception as error:  # finding a.b imports a, which is someone else's code
            return f"broken: {one_line(error)}"
        file = spec.origin if spec else None
    if file is None:
        return f"broken: {_origin(plug_in)} does not exist"
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        return f"broken: {one_line(error)}"
    attribute = kind if isinstance(plug_in, Path) else plug_in.attr or kind
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == attribute]
    doc = next((doc for node in functions if (doc := ast.get_docstring(node))), None) or ast.get_docstring(tree)
    return doc.splitlines()[0] if doc else ""


def display_name(name: str) -> str:
    """What a plug-in is called in results: its name, or a file's name without folder and `.py`."""
    return Path(name).stem if _is_path(name) else name


def own_task_file(task: str) -> list[Path]:
    """The file of a task that is a file of the user's own, else none."""
    return [Path(task).expanduser().resolve()] if _is_path(task) else []


def _is_path(name: str) -> bool:
    return name.endswith(".py")


def _origin(plug_in: Path | EntryPoint) -> str:
    return str(plug_in) if isinstance(plug_in, Path) else f"entry point {plug_in.value}"


@functools.lru_cache(maxsize=64)
def _installed(entry_points: Callable[..., Any], group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """The entry points of a group, of the packages on the path; each look reads the files of all packages."""
    return tuple(entry_points(group=group))


def _found(kind: Kind) -> dict[str, Path | EntryPoint]:
    from importlib import metadata

    # The first folder on the path is the one that `import evalkit.tasks` takes.
    folder = next((f for root in evalkit.__path__ if (f := Path(root) / f"{kind}s").is_dir()), None)
    files = [*folder.glob("[!_.]*.py"), *folder.glob("[!_.]*/__init__.py")] if folder else []
    plug_ins: dict[str, Path | EntryPoint] = {}
    candidates: list[tuple[str, Path | EntryPoint]] = [
        *((f.parent.name if f.name == "__init__.py" else f.stem, f) for f in sorted(files, key=str)),
        *((point.name, point) for point in _installed(metadata.entry_points, f"evalkit.{kind}s", tuple(sys.path))),
    ]
    for name, candidate in candidates:
        if name in plug_ins:
            both = f"{_origin(plug_ins[name])} and {_origin(candidate)}"
            raise UserError(f"two {kind}s are named {name!r}: {both}; rename or remove one")
        plug_ins[name] = candidate
    return plug_ins


def _find(kind: Kind, name: str) -> Path | EntryPoint:
    if _is_path(name):
        file = Path(name).expanduser()
        if not file.is_file():
            there = sorted(str(near) for near in file.parent.glob("*.py")) if file.parent.is_dir() else []
            near = suggest(str(file), there)
            raise UserError(f"no {kind} file {name!r}{near and '.'}{near}")
        return file.resolve()
    plug_ins = _found(kind)
    if name not in plug_ins:
        raise UserError(f"no {kind} named {name!r}.{_meant(kind, name, sorted(plug_ins))}")
    return plug_ins[name]


def _meant(kind: Kind, name: str, known: list[str]) -> str:
    """What to append where there is no plug-in of a name: what was probably meant, or how to see all."""
    called = CALLED.get(kind, {}).get(letters(name))
    if called and called.split()[0].partition("=")[2] in known:
        return f" Did you mean {called}?"
    place = os.path.expanduser(name)  # os.path takes any name, also one that is too long
    if name and os.path.isfile(f"{place}.py"):
        return f" Did you mean {kind}=./{name}.py?"
    is_table = place.endswith((".csv", ".tsv")) and os.path.isfile(place)
    if kind == "task" and "folder" in known and (os.path.isdir(place) or is_table):
        return f" {name} holds data: task=folder data.root={name}"
    parts = name.split(",")
    if len(parts) > 1 and all(part in known for part in parts):
        return f" A run takes one; evalkit sweep {kind}={name} runs each"
    return among(name, known, f"`evalkit list {kind}s` shows all")


def _load(kind: Kind, file: Path) -> ModuleType:
    # The name is the same in every process, so that what the module defines can be pickled and looked up again.
    name = f"evalkit_{kind}_{file.stem}_{hashlib.sha256(bytes(file)).hexdigest()[:12]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None and spec.loader is not None  # a .py file always has both
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _broken(kind: Kind, name: str, file: Path | None, error: Exception) -> str:
    """One line: which file, which of its lines, what was raised."""
    if isinstance(error, SyntaxError) and error.filename:
        where, what = f"{error.filename}:{error.lineno}", f"{type(error).__name__}: {error.msg}"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        # The deepest line of the plug-in itself; what it called into is rarely what must be mended.
        inside = [frame for frame in frames if file and Path(frame.filename).parent == file.parent]
        frame = (inside or frames)[-1]
        where, what = f"{frame.filename}:{frame.lineno}", one_line(error)
    return f"{kind} {name!r} is broken: {where}: {what}"
