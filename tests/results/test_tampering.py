"""What `evalkit validate` finds of a run that was edited, and what only a signature tells."""

import shutil
import subprocess
from pathlib import Path

import pytest

from evalkit.cli import main
from evalkit.errors import UserError
from evalkit.results import signature
from evalkit.results.validate import validate
from tests.results import edits
from tests.results.edits import Files
from tests.results.tampering import FOUND, UNKNOWN


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return edits.write(tmp_path_factory.mktemp("recorded"))


@pytest.fixture
def copy(recorded: Path, tmp_path: Path) -> Files:
    return Files(Path(shutil.copytree(recorded, tmp_path / recorded.name)))


def test_a_run_as_it_was_written_is_valid_and_stays_so_when_it_is_written_back(copy: Files) -> None:
    assert validate(copy.run) == []
    copy.scored = True
    copy.write()
    assert validate(copy.run) == []
    moved = copy.run.rename(copy.run.with_name("moved"))  # a name that says nothing
    assert validate(moved) == []


def test_orders_of_options_that_an_older_record_counted_more_often_are_valid(copy: Files) -> None:
    of_three = copy.line("q0")["controls"]["option_order"] = [[0, 2, 1], [1, 2, 0], [1, 2, 0]]
    (control,) = (entry for entry in copy.record["controls"] if entry["name"] == "option_order")
    targets = [i % 3 for i in range(12)]
    two = {0: 1 / 2, 1: 1 / 2, 2: 0}
    twice = {0: 2 / 3, 1: 1 / 3, 2: 0}  # of three turns two are the first order
    for share, valid in ((two, True), (twice, True), ({0: 1 / 3, 1: 2 / 3, 2: 0}, False)):
        right = [first == 0 for first, *_ in of_three].count(True) / 3 + sum(share[target] for target in targets[1:])
        control["value"] = 100 * right / 14
        copy.write()
        told = [
            f"control option_order: stored top1 {control['value']}, recomputed top1 " in p for p in validate(copy.run)
        ]
        assert told == [True] * (not valid)


def test_the_table_has_72_kinds_and_more() -> None:
    assert len(FOUND) >= 72 and not FOUND.keys() & UNKNOWN.keys()


@pytest.mark.parametrize("kind", FOUND)
def test_an_edit_is_found(copy: Files, kind: str) -> None:
    edit, problem = FOUND[kind]
    edit(copy)
    if (copy.run / "result.json").exists():
        copy.write()
    problems = validate(copy.run)
    assert any(problem in line for line in problems), problems
    assert all(line.startswith(f"{copy.run}: ") and "\n" not in line and len(line) < 500 for line in problems)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two SSH keys, ours and theirs, and a file `signers` that allows ours."""
    if not shutil.which("ssh-keygen"):
        pytest.skip("needs ssh-keygen (Debian: apt-get install openssh-client)")
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "theirs"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "signers").write_text(f"me@lab.org {(folder / 'ours.pub').read_text()}")
    return folder


def test_a_signed_run_is_verified_by_name(copy: Files, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, signers = str(copy.run), f"signers={keys / 'signers'}"
    assert main(["validate", run, signers]) == 1
    assert capsys.readouterr().out == f"{run}: not signed: no result.json.sig in it\n"
    for _ in range(2):  # the second takes the first one's place
        assert main(["sign", run, f"key={keys / 'ours'}"]) == 0
        assert capsys.readouterr().out == f"{run}/result.json.sig\n"
    assert main(["validate", run, signers]) == 0
    assert capsys.readouterr().out == f"{run}: ok, signed by me@lab.org\n"
    assert main(["sign", run, f"key={keys / 'theirs'}"]) == 0
    capsys.readouterr()
    assert main(["validate", run, signers]) == 1
    assert capsys.readouterr().out == f"{run}: its signature matches no key in {keys / 'signers'}\n"
    board = copy.run.parent / "board.csv"
    assert main(["leaderboard", f"results={run}", f"out={board}", signers]) == 1
    assert "its signature matches no key" in capsys.readouterr().err and len(board.read_text().splitlines()) == 1


@pytest.mark.parametrize("kind", UNKNOWN)
def test_an_edit_that_no_file_tells_is_found_by_the_signature_alone(copy: Files, keys: Path, kind: str) -> None:
    signature.sign(copy.run, keys / "ours")
    UNKNOWN[kind](copy)
    copy.write()
    assert validate(copy.run) == []
    with pytest.raises(UserError, match=r"the signature is not of this result.json"):
        signature.signer(copy.run, keys / "signers")


def test_signing_refuses_what_it_cannot_vouch_for(
    copy: Files, keys: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(copy.run)

    def told(*words: str) -> str:
        assert main(words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "key=/no/key: there is no such file" in told("sign", run, "key=/no/key")
    assert "ssh-keygen cannot sign with it" in told("sign", run, f"key={keys / 'signers'}")
    assert "sign takes one run and key=FILE" in told("sign", run)
    assert "signers=/no: there is no such file" in told("validate", run, "signers=/no")
    copy.score().update(value=99.0)
    copy.write()
    assert "not signed: " in told("sign", run, f"key={keys / 'ours'}")
    monkeypatch.setenv("PATH", "")
    assert "there is no ssh-keygen here" in told("validate", run, f"signers={keys / 'signers'}")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("locked", "it is locked with a passphrase: `ssh-add "),
        ("open", "others may read it: `chmod 600 "),
        ("text", "it is no SSH key, or a public one whose private key is neither beside it nor held by ssh-agent"),
        ("lone.pub", "it is no SSH key, or a public one whose private key is neither beside it nor held by ssh-agent"),
    ],
)
def test_a_key_that_cannot_sign_says_why(
    copy: Files, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, words: str
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "never")
    key = tmp_path / kind
    if kind == "locked":
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(key)], check=True)
    else:
        key.write_text({"open": keys / "ours", "lone.pub": keys / "ours.pub"}.get(kind, keys / "signers").read_text())
        key.chmod(0o644 if kind == "open" else 0o600)
    with pytest.raises(UserError, match="ssh-keygen cannot sign with it: ") as caught:
        signature.sign(copy.run, key)
    assert words in str(caught.value)


def test_a_folder_in_place_of_config_yaml_is_not_called_changed(copy: Files) -> None:
    (copy.run / "config.yaml").unlink()
    (copy.run / "config.yaml").mkdir()
    problems = [problem for problem in validate(copy.run) if "config.yaml" in problem]
    assert any("config.yaml cannot be read" in problem for problem in problems)
    assert not any("was changed" in problem for problem in problems)
