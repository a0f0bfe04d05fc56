"""Who vouches for a run: result.json signed with an SSH key, by OpenSSH's ssh-keygen.

result.json holds the hashes of predictions.jsonl, config.yaml and evidence.jsonl, so its signature covers them, too.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from evalkit.errors import UserError, in_line
from evalkit.results.run_folder import RESULT, folder_of
from evalkit.results.validate import check
from evalkit.runtime import bounded
from evalkit.runtime.atomic import hidden_beside, rename

SIGNATURE = f"{RESULT}.sig"
NAMESPACE = "evalkit"
MAX_BYTES = 100_000  # of a signature; with a key of RSA, 4096 bits, it has 1,600


def sign(run: Path, key: Path, files: Sequence[Path] = ()) -> Path:
    """Signs a run that validates, and returns the signature's file, which replaces a former one.

    Args:
        run: its folder or its result.json.
        key: a private SSH key, or the public one of a key that the agent holds.
        files: of tasks of the user's own.

    Raises:
        UserError: the run does not validate, the key cannot sign, or there is no ssh-keygen.
    """
    run = folder_of(run)
    checked = check(run, files)
    if checked.problems:
        raise UserError(f"not signed: {checked.problems[0]}")
    if "config_sha256" not in checked.record["provenance"]:
        raise UserError(f"not signed: {run}: {RESULT} has no hash of config.yaml, so nothing would cover it")
    if not shutil.which("ssh-keygen"):
        raise UserError("there is no ssh-keygen here, which signs: install OpenSSH 8.2 or newer")
    if not key.is_file():
        raise UserError(f"key={key}: there is no such file; `ssh-keygen -t ed25519` makes a key")
    if not os.access(key, os.R_OK):
        raise UserError(f"key={key}: you have no permission to read it")
    signed = _ssh_keygen(["-Y", "sign", "-f", str(key), "-n", NAMESPACE], run / RESULT)
    if signed.returncode:
        raise UserError(f"key={key}: ssh-keygen cannot sign with it: {_refusal(signed, key)}")
    signature = run / SIGNATURE
    with hidden_beside(signature) as hidden:
        hidden.write_bytes(signed.stdout)
        return rename(hidden, signature)


def allowed(words: Sequence[str]) -> tuple[list[str], Path | None]:
    """The words but for `signers=FILE`, and the file that it names; None where no word does.

    Raises:
        UserError: there is no such file, or several are named, or there is no ssh-keygen.
    """
    files = [Path(word.removeprefix("signers=")).expanduser() for word in words if word.startswith("signers=")]
    if len(files) > 1:
        raise UserError(f"signers is given twice: {files[0]} and {files[1]}")
    if files and not files[0].is_file():
        raise UserError(f"signers={files[0]}: there is no such file; wanted lines of a name and a public key")
    if files and not shutil.which("ssh-keygen"):
        raise UserError("signers=: there is no ssh-keygen here, which verifies: install OpenSSH 8.2 or newer")
    return [word for word in words if not word.startswith("signers=")], files[0] if files else None


def signer(run: Path, signers: Path) -> str:
    """Who signed a run, by the name that a file of allowed signers gives the key.

    Args:
        run: its folder or its result.json.
        signers: lines of a name and a public key, as `man ssh-keygen` has them under ALLOWED SIGNERS.

    Raises:
        UserError: the run is not signed, by none of them, or was changed since.
    """
    run = folder_of(run)
    signature = run / SIGNATURE
    if not signature.is_file():
        raise UserError(f"{run}: not signed: no {SIGNATURE} in it")
    try:
        bounded.read_bytes(signature, MAX_BYTES)  # else ssh-keygen would read all of it
    except OSError as error:
        raise UserError(f"{run}: {SIGNATURE} cannot be read: {error.strerror}") from error
    of_key = ["-f", str(signers), "-s", str(signature)]
    known = _ssh_keygen(["-Y", "find-principals", *of_key], run / RESULT)
    names = known.stdout.decode(errors="replace").splitlines()
    if known.returncode or not names:
        first, *more = known.stderr.decode(errors="replace").splitlines() or [""]
        wanted = f": {in_line(first)[:200]}; a line is a name and a public key, `me@lab.org ssh-ed25519 AAAA...`"
        raise UserError(f"{run}: its signature matches no key in {signers}{wanted if more else ''}")
    verified = _ssh_keygen(["-Y", "verify", "-I", names[0], "-n", NAMESPACE, *of_key], run / RESULT)
    if verified.returncode:
        raise UserError(f"{run}: the signature is not of this {RESULT}: {_last(verified)}")
    return names[0]


def _ssh_keygen(words: Sequence[str], content: Path) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["ssh-keygen", *words], input=bounded.read_bytes(content), capture_output=True)
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from error


def _refusal(done: subprocess.CompletedProcess[bytes], key: Path) -> str:
    """Why ssh-keygen does not sign, with what to do where that is known."""
    text = in_line((done.stderr + done.stdout).decode(errors="replace"))
    if "passphrase" in text:
        private = str(key).removesuffix(".pub")
        return (
            f"it is locked with a passphrase: `ssh-add {shlex.quote(private)}` unlocks it for ssh-agent, then give its "
            f"public key, key={shlex.quote(f'{private}.pub')}"
        )
    if "UNPROTECTED" in text:
        return f"others may read it: `chmod 600 {shlex.quote(str(key))}`"
    if re.search("load public key|invalid format|no private key found", text, re.IGNORECASE):
        return "it is no SSH key, or a public one whose private key is neither beside it nor held by ssh-agent"
    return _last(done)


def _last(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = (done.stderr + done.stdout).decode(errors="replace").splitlines()
    return in_line(lines[-1])[:200] if lines else f"it ended with {done.returncode}"
