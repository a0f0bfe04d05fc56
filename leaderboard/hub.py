"""Results on the Hugging Face hub: on a model's page, in a data set of results, or as a pull request to a board.

Nothing is sent unless `confirm=true` says so: without it every file is printed as it would be written, and no network
is asked. What is sent goes as a pull request, never straight into a repository. The token is huggingface_hub's own
(`hf auth login`, or HF_TOKEN); it is neither printed nor stored.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import yaml

from evalkit.errors import UserError, counted, in_line, nearest
from evalkit.results import run_folder, signature, validate
from evalkit.results.evidence import EVIDENCE
from evalkit.results.scores import task_files
from evalkit.runtime import atomic, bounded
from evalkit.weights.huggingface import is_hub_name

from .exports import hf, model_id, path_part, timestamp, told_apart
from .runs import Run, collect

logger = logging.getLogger("evalkit")

KINDS = {"eval_results": "model", "model_index": "model", "dataset": "dataset"}  # and the repository of each
RUN_FILES = (run_folder.RESULT, run_folder.PREDICTIONS, run_folder.CONFIG, EVIDENCE, signature.SIGNATURE)
CARD = "README.md"
SHOWN_LINES = 20  # of a run's files
_FRONT = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)


class Target(NamedTuple):
    """A repository, the word that named it, and whether it is of a model or a data set."""

    word: str
    repo: str
    kind: str


def push(words: Sequence[str]) -> int:
    """Puts results on the hub, or prints what would be put there.

    Args:
        words: results=, a run or a folder with runs; repo=OWNER/NAME; as=, one of `KINDS`; dataset=, the hub's id of
            the benchmark, of which all runs must be; confirm=true, which sends; task=, files of the user's own.

    Returns:
        1 where a run does not validate; such runs are named and left out.

    Raises:
        UserError: a word is wrong, the runs do not fit the repository, or the hub does not take them.
    """
    words, files = task_files(words)
    options = _options(words, {"results": "results", "repo": "", "as": "eval_results", "dataset": "", "confirm": ""})
    if options["as"] not in KINDS:
        near = nearest(options["as"], KINDS)
        hint = f" Did you mean as={near}?" if near else ""
        raise UserError(f"as={options['as']}: expected one of {', '.join(KINDS)}.{hint}")
    if not options["repo"]:
        raise UserError("push needs repo=OWNER/NAME, a repository of the hub that is there")
    if not is_hub_name(options["repo"]):
        raise UserError(f"repo={options['repo']}: expected OWNER/NAME, a repository of the hub that is there")
    target = Target("repo", options["repo"], KINDS[options["as"]])
    runs, refused = collect(Path(options["results"]), files)
    runs.sort(key=timestamp, reverse=True)
    for line in refused:
        logger.warning(f"refused: {line}")
    if not runs:
        raise UserError(f"results={options['results']}: no run validates, so there is nothing to push")
    if options["dataset"] and (options["as"] != "eval_results" or len({r.result["task"]["name"] for r in runs}) > 1):
        raise UserError(f"dataset={options['dataset']} names the benchmark of one task, with as=eval_results")
    confirmed = options["confirm"] == "true"
    if options["as"] == "dataset":
        content = {path: data for run in runs for path, data in files_of(run.folder, run.result).items()}
    elif options["as"] == "eval_results":
        newest_last = reversed([*hf.eval_results(_of_one_model(runs), options["dataset"])])
        content = {path: text.encode() for path, text in newest_last}
        if not options["dataset"]:
            logger.warning("the hub's boards take entries whose dataset.id is theirs: dataset=OWNER/NAME gives it")
    else:
        results = hf.model_index(_of_one_model(runs))
        card = _card(target) if confirmed else ""
        content = {CARD: with_index(card, results, target.repo.partition("/")[2]).encode()} if results else {}
        if not confirmed:
            logger.info(f"of the {CARD} that {target.repo} has, all but its results of the same tasks is kept")
    if not content:
        raise UserError(f"results={options['results']}: no run has a headline, so there is nothing to push")
    title = f"Add {len(runs)} evalkit {'result' if len(runs) == 1 else 'results'}"
    _send(target, content, title, confirmed)
    return 1 if refused else 0


def submit(words: Sequence[str]) -> int:
    """Submits a run's files to a leaderboard: into a folder, or as a pull request to a data set on the hub.

    Args:
        words: the run; to=, a folder that is there or OWNER/NAME; key=FILE, to sign it first; confirm=true, without
            which nothing is sent to the hub; task=, files of the user's own.

    Returns:
        0.

    Raises:
        UserError: a word is wrong, the run does not validate, or there is no place for it.
    """
    words, files = task_files(words)
    places = [word for word in words if "=" not in word or Path(word).exists()]
    options = _options([word for word in words if word not in places], {"to": "", "key": "", "confirm": ""})
    if len(places) != 1 or not options["to"]:
        raise UserError(f"submit takes one run and to=FOLDER or to=OWNER/NAME; got {' '.join(words) or 'nothing'}")
    run = run_folder.folder_of(Path(places[0]))
    record = run_folder.load(run)
    if options["key"]:
        signature.sign(run, Path(options["key"]).expanduser(), files)
    elif problems := validate.validate(run, files):
        raise UserError(f"not submitted: {problems[0]}")
    content = files_of(run, record)
    to = Path(options["to"]).expanduser()
    if to.is_dir():
        _write(to, content)
        return 0
    if not is_hub_name(options["to"]):
        raise UserError(f"to={options['to']}: there is no such folder, and it is not an OWNER/NAME of the hub")
    title = f"Add {record['encoder']['name']} on {record['task']['name']}"
    _send(Target("to", options["to"], "dataset"), content, title, options["confirm"] == "true")
    return 0


def files_of(run: Path, record: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of a run by their paths in a folder of results: ENCODER/TASK/RUN/FILE."""
    home = "/".join(map(path_part, (record["encoder"]["name"], record["task"]["name"], run.absolute().name)))
    return {f"{home}/{name}": bounded.read_bytes(run / name) for name in RUN_FILES if (run / name).exists()}


def with_index(card: str, results: Sequence[Mapping[str, Any]], name: str) -> str:
    """A model card with these results in its model-index, replacing earlier results of the same tasks.

    Args:
        card: README.md as it is; empty where there is none.
        results: each with task, dataset and metrics.
        name: of the model, where the card has no model-index yet.

    Raises:
        UserError: the front matter is no yaml, or holds another kind of model-index.
    """
    front = _FRONT.match(card)
    try:
        metadata = (yaml.safe_load(front[1]) if front else None) or {}
        index = metadata.get("model-index") or [{"name": name}]
        new = [_asked(result) for result in results]
        kept = [result for result in index[0].get("results") or [] if _asked(result) not in new]
        index[0]["results"] = [*kept, *results]
        metadata["model-index"] = index
    except (yaml.YAMLError, AttributeError, TypeError, KeyError) as error:
        raise UserError(f"{CARD} there has a front matter that nothing can be added to: {in_line(error)}") from error
    text = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    return f"---\n{text}---\n{card[front.end() :] if front else card}"


def _asked(result: Mapping[str, Any]) -> tuple[Any, ...]:
    """What two entries of one benchmark, asked in one way, have in common."""
    dataset = result["dataset"]
    return dataset["type"], dataset.get("split"), (dataset.get("args") or {}).get("protocol_sha256")


def _options(words: Sequence[str], options: dict[str, str]) -> dict[str, str]:
    """The words key=value in place of the values that stand for no word.

    Raises:
        UserError: a key is none of these, or `confirm` is neither true nor false.
    """
    known = list(options)
    for word in words:
        key, equals, value = word.partition("=")
        if key not in known or not equals:
            near = nearest(key, known)
            hint = f" Did you mean {near}=?" if near else ""
            raise UserError(f"unknown word {word!r}: known are {', '.join(f'{name}=' for name in known)}.{hint}")
        options = options | {key: value}
    if options["confirm"] not in ("", "true", "false"):
        raise UserError(f"confirm={options['confirm']}: expected true, which sends, or false")
    return options


def _of_one_model(runs: Sequence[Run]) -> list[Run]:
    """The runs, all of which a model's page may hold.

    Raises:
        UserError: they are of several encoders, or of miniatures.
    """
    names = {"/".join(model_id(run)) for run in told_apart(runs)}
    if len(names) > 1:
        raise UserError(
            f"a model's page has the results of one encoder, and these are of {', '.join(sorted(names))}: name the "
            f"folder of one, such as results={runs[0].folder.parent.parent}"
        )
    minis = [run.result["task"]["name"] for run in runs if run.result["task"]["name"].endswith("@mini")]
    if minis:
        raise UserError(f"{minis[0]} is a miniature, and says nothing on a model's page: push results of real data")
    return list(runs)


def _write(folder: Path, content: Mapping[str, bytes]) -> None:
    """Writes the files below a folder; nothing is overwritten.

    Raises:
        UserError: one is there already, with other bytes.
    """
    for path, data in content.items():
        file = folder / path
        if file.exists() and file.read_bytes() != data:
            raise UserError(f"{file} is there already, and differs: nothing is overwritten")
    for path, data in content.items():
        atomic.write(folder / path, data)
        print(folder / path)


def _send(target: Target, content: Mapping[str, bytes], title: str, confirmed: bool) -> None:
    """Opens a pull request with these files, or prints them."""
    total = sum(map(len, content.values()))
    if not confirmed:
        for path, data in content.items():
            print(f"--- {path} ({len(data):,} bytes)")
            lines = data.decode("utf-8", "replace").splitlines()
            most = SHOWN_LINES if Path(path).name in RUN_FILES else len(lines)
            print("\n".join(line if len(line) <= 2_000 else f"{line[:2_000]}..." for line in lines[:most]))
            if len(lines) > most:
                print(f"... {counted(len(lines) - most, 'more line')}")
        print(
            f"nothing was sent: {counted(len(content), 'file')}, {total:,} bytes for a pull request to {target.kind} "
            f"{target.repo}; confirm=true sends them"
        )
        return
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(token=_token())
    try:
        api.repo_info(target.repo, repo_type=target.kind)
        sent = api.create_commit(
            target.repo,
            [CommitOperationAdd(path, data) for path, data in content.items()],
            commit_message=title,
            repo_type=target.kind,
            create_pr=True,
        )
    except Exception as error:  # the hub's, the network's
        raise _refused(target, error) from error
    print(sent.pr_url or sent.commit_url)


def _card(target: Target) -> str:
    """The card of a model of the hub; empty where it has none."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import EntryNotFoundError

    api = HfApi(token=_token())
    with TemporaryDirectory(prefix="evalkit-") as folder:
        try:
            api.repo_info(target.repo)  # at once: the download would be tried for half a minute
            return Path(api.hf_hub_download(target.repo, CARD, local_dir=folder)).read_text(encoding="utf-8")
        except EntryNotFoundError:
            return ""
        except Exception as error:  # the hub's, the network's
            raise _refused(target, error) from error


def _token() -> str:
    """The user's token; raises UserError where there is none."""
    from huggingface_hub import get_token

    token = get_token()
    if not token:
        raise UserError("the hub wants a token of yours, and there is none: `hf auth login`, or set HF_TOKEN")
    return token


def _refused(target: Target, error: Exception) -> UserError:
    """Why the hub does not take it, as one line without the token."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    where = f"{target.word}={target.repo}"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, RepositoryNotFoundError) and status != 401:
        return UserError(f"{where}: the hub has no such {target.kind}, or your token may not see it")
    if status == 401:
        return UserError(f"{where}: the hub does not accept your token; `hf auth login` gives a new one")
    if status == 403:
        return UserError(f"{where}: your token may not open a pull request there; it needs the right to write")
    if isinstance(error, OfflineModeIsEnabled):
        return UserError(f"{where}: HF_HUB_OFFLINE is set, so nothing can be sent")
    if status is None and isinstance(error, OSError) or "Connect" in type(error).__name__:
        return UserError(f"{where}: the hub cannot be reached ({type(error).__name__})")
    return UserError(f"{where}: the hub does not take it: {in_line(error).replace(_token(), '***')[:300]}")
