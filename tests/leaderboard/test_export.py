"""Results in the formats of others, read back by their own packages where they are installed."""

import csv
import importlib
import io
import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from evalkit.cli import main
from evalkit.errors import UserError
from evalkit.metrics.average_precision import multilabel_map
from evalkit.metrics.classification import accuracy, top1_top5
from evalkit.metrics.retrieval import retrieval
from evalkit.metrics.text.captions import captions
from evalkit.results.rows import Row
from evalkit.results.run_folder import write
from tests.records import result_of, rows_of

exports = importlib.import_module("evalkit.leaderboard.exports")  # a folder of the repository is part of the package
board_csv = importlib.import_module("evalkit.leaderboard.csv")
collect = importlib.import_module("evalkit.leaderboard.runs").collect
foreign = importlib.import_module("evalkit.leaderboard.other_tools").read_scores

ANSWERED = [Row("q0", "q0.mp4", target=1, prediction=1), Row("q1", "q1.mp4", target=4, prediction=0)]
RANKS = [Row(f"t{i}", f"{i}.mp4", target=f"t{i}", prediction={"t2v": i + 1, "v2t": 1}) for i in range(6)]
CLASSES = [Row(f"c{i}", f"{i}.mp4", target=i % 2, prediction=[0, 1, 2, 3, 4]) for i in range(8)]
SAID = [
    Row("v0", "v0.mp4", target=["a red ball rolls", "a ball moves left"], prediction="a red ball moves"),
    Row("v1", "v1.mp4", target=["a cube spins"], prediction="the cube spins quickly"),
    Row("v2", "v2.mp4", target=["nothing is there"], failure="no such file"),
]
SEVERAL = [Row(f"m{i}", f"{i}.mp4", target=[i % 3], prediction=[0.2, 0.5, 0.3]) for i in range(6)]


def save(
    results: Path,
    task: str,
    rows: Sequence[Row],
    score: Callable[..., Any],
    adapter: str,
    ckpt: str = "demo",
    head: str = "",
    **more: Any,
) -> Path:
    """A run of a task, one second after the last."""
    record = result_of(rows, score) | more
    name = ckpt.split("/")[-1]
    record["task"] |= {"name": task, "split": "test"}
    record["encoder"] |= {"name": name, "ckpt": ckpt}
    record["adapter"] |= {"name": adapter, "settings": {"head": head}}
    record["provenance"]["finished"] = f"2026-02-01T00:00:{len(list(results.rglob('result.json'))):02d}+00:00"
    return write(results / name / task / "run", record, rows, "")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of every kind: with failures, without public answers, zero-shot and fitted, in words and in ranks."""
    results = tmp_path_factory.mktemp("results")
    save(results, "egoschema@mini", rows_of(8, 4, failed=3, unlabeled=2), accuracy, "multiple_choice")
    save(results, "egoschema", ANSWERED, accuracy, "multiple_choice")
    save(results, "msrvtt", RANKS, retrieval, "retrieval", "clip_base", selection=None)
    save(results, "kinetics400", CLASSES, top1_top5, "probe", "./mine/vit", head="linear")
    save(results, "charades", SEVERAL, multilabel_map, "probe", "facebook/vjepa2-vitl-fpc64-256@main")
    save(results, "msrvtt_caption", SAID, captions, "captioner")
    return results


@pytest.fixture
def exported(results: Path, tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Exports the runs in a format and gives the text of each file by its path."""

    def export(to: str) -> dict[str, str]:
        assert main(["export", f"results={results}", f"to={to}", f"out={tmp_path}"]) == 0
        return {
            file.relative_to(tmp_path).as_posix(): file.read_text()
            for file in sorted(tmp_path.rglob("*.*"))
            if file.is_file()
        }

    return export


def parsed(files: dict[str, str], path: str) -> Any:
    return json.loads(files[path])


# --- each format


def test_lm_eval_has_the_scores_as_fractions_and_a_line_per_example(exported: Callable[[str], dict[str, str]]) -> None:
    files = exported("lm-eval")
    found = parsed(files, "evalkit__demo/results_2026-02-01T00-00-00.json")
    metrics = found["results"]["egoschema@mini"]
    assert metrics["acc,none"] == pytest.approx(8 / 15)
    told = found["configs"]["egoschema@mini"]["metadata"]["evalkit"]
    low, high = told["scores"][0]["ci95"]
    assert metrics["acc_stderr,none"] == pytest.approx((high - low) / 100 / 2 / 1.96, rel=1e-4)
    assert told["controls"] == [{"name": "blind", "metric": "accuracy", "value": 22.5}] and told["n_failed"] == 3
    assert found["n-samples"] == {"egoschema@mini": {"original": 17, "effective": 17}}

    lines = [
        json.loads(line)
        for line in files["evalkit__demo/samples_egoschema@mini_2026-02-01T00-00-00.jsonl"].splitlines()
    ]
    assert [line["doc_id"] for line in lines] == list(range(17))
    assert [line.get("acc") for line in lines] == [1.0] * 8 + [0.0] * 7 + [None] * 2  # no answer is public of the last
    assert lines[12]["doc"]["failure"] == "no such file" and lines[12]["resps"] == [[""]]
    ranks = parsed(files, "openai__clip-vit-base-patch16/results_2026-02-01T00-00-02.json")
    assert ranks["results"]["msrvtt"]["t2v_median_rank,none"] == 3.5  # a rank is no rate
    assert (
        ranks["higher_is_better"]["msrvtt"] | {"t2v_median_rank": False, "t2v_R@1": True}
        == ranks["higher_is_better"]["msrvtt"]
    )


def test_lm_eval_reads_what_is_written_for_it(exported: Callable[[str], dict[str, str]]) -> None:
    utils = pytest.importorskip("lm_eval.utils", reason="needs lm-eval, which is large: pip install lm-eval")
    files = exported("lm_eval")
    names = [f"/{path}" for path in files]
    aggregated, samples = utils.get_results_filenames(names), utils.get_sample_results_filenames(names)
    assert len(aggregated) == len(samples) == 6
    for path in aggregated:
        found = json.loads(files[path[1:]])
        (metrics,) = found["results"].values()
        scored = {key.removesuffix(",none") for key in metrics if key.endswith(",none") and "_stderr" not in key}
        cells = {cell.strip() for cell in utils.make_table(found).split("|")}
        assert scored and scored <= cells
        assert utils.sanitize_model_name(found["model_name"]) == found["model_name_sanitized"] == path.split("/")[1]


def test_mteb_has_a_tree_of_fractions(exported: Callable[[str], dict[str, str]]) -> None:
    files = exported("mteb")
    found = parsed(files, f"results/evalkit__demo/{'0' * 64}/egoschema@mini.json")
    (subset,) = found["scores"]["test"]
    assert subset["main_score"] == subset["accuracy"] == pytest.approx(8 / 15)
    assert subset["evalkit"]["protocol_sha256"] and subset["evalkit"]["scores"][0]["n_clusters"] == 5
    assert parsed(files, f"results/local__vit/{'0' * 64}/model_meta.json")["name"] == "local/vit"


def test_mteb_reads_what_is_written_for_it(exported: Callable[[str], dict[str, str]], tmp_path: Path) -> None:
    mteb = pytest.importorskip("mteb", reason="needs mteb, which is large: pip install mteb")
    files = exported("mteb")
    found = mteb.ResultCache(cache_path=tmp_path).load_results()
    assert {one.model_name for one in found.model_results} == {
        "evalkit/demo",
        "openai/clip-vit-base-patch16",
        "facebook/vjepa2-vitl-fpc64-256",
        "local/vit",
    }
    meta = importlib.import_module("mteb.models.model_meta").ModelMeta
    for path in files:
        if path.endswith("model_meta.json"):
            read = meta.model_validate_json_resolved(files[path])
            assert (read.n_parameters, read.modalities) == (1_234_567, ["video"])
            continue
        result = mteb.TaskResult.from_disk(tmp_path / path, load_historic_data=False)
        ours = {(one.metric, round(one.value, 4)) for one in foreign(tmp_path / path)}
        assert ("main_score", round(100 * result.main_score, 4)) in ours
        result.to_disk(tmp_path / path)  # as mteb itself writes it
        assert {(one.metric, round(one.value, 4)) for one in foreign(tmp_path / path)} == ours


def test_the_hub_reads_what_is_written_for_it(exported: Callable[[str], dict[str, str]]) -> None:
    from huggingface_hub import ModelCardData, parse_eval_result_entries
    from huggingface_hub.repocard_data import model_index_to_eval_results

    files = exported("hf")
    (entry,) = parse_eval_result_entries(yaml.safe_load(files["evalkit__demo/.eval_results/egoschema@mini.yaml"]))
    assert (entry.dataset_id, entry.task_id, entry.value, entry.date) == (
        "egoschema@mini",
        "test",
        53.333333,
        "2026-02-01",
    )
    assert entry.notes and "95 % interval" in entry.notes and "3 failed examples count as wrong" in entry.notes

    index = yaml.safe_load(files["openai__clip-vit-base-patch16/model-index.yaml"])
    name, found = model_index_to_eval_results(index["model-index"])
    assert name == "clip-vit-base-patch16"
    assert {one.metric_type: one.metric_value for one in found}["t2v_R@5"] == pytest.approx(83.333333)
    assert found[0].metric_args and found[0].metric_args["n"] == 6 and len(found[0].metric_args["ci95"]) == 2
    assert ModelCardData(model_name=name, eval_results=found).to_yaml()


def test_every_eval_ever_has_intervals_and_samples_of_the_headline(exported: Callable[[str], dict[str, str]]) -> None:
    files = exported("eee")
    (path,) = (path for path in files if path.startswith("data/egoschema@mini/") and path.endswith(".json"))
    log = parsed(files, path)
    (found,) = log["evaluation_results"]
    interval = found["score_details"]["uncertainty"]["confidence_interval"]
    assert interval["lower"] < found["score_details"]["score"] == 53.333333 < interval["upper"]
    assert found["score_details"]["details"]["control blind accuracy"] == "22.5"
    samples = [json.loads(line) for line in files[log["detailed_evaluation_results"]["file_path"]].splitlines()]
    assert [one["evaluation"]["is_correct"] for one in samples] == [True] * 8 + [False] * 7
    assert [one.get("error") for one in samples[-4:]] == [None, *["no such file"] * 3]
    (ranks,) = (json.loads(text) for path, text in files.items() if "/msrvtt/" in path and path.endswith(".json"))
    lower = {
        one["metric_config"]["metric_id"]: one["metric_config"]["lower_is_better"]
        for one in ranks["evaluation_results"]
    }
    assert lower["t2v_mean_rank"] and not lower["t2v_R@1"]


def test_every_eval_ever_validates_what_is_written_for_it(
    exported: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    command = shutil.which("every_eval_ever")
    if command is None:
        pytest.skip("needs every_eval_ever, which asks for Python 3.12 and an older huggingface_hub: pipx install it")
    files = [path for path in exported("eee") if path.startswith("data/")]
    ended = subprocess.run(
        [command, "validate", "--format", "json", *files], cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout
    reports = json.loads(ended.stdout)
    assert len(files) == 10 and str(reports).count("'valid': True") == 10, reports


def test_clip_benchmark_has_its_own_keys_and_says_what_has_no_place(
    exported: Callable[[str], dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    files = exported("clip_benchmark")
    assert len(files) == 3
    found = parsed(files, "msrvtt_000000000000_clip-vit-base-patch16_en_zeroshot_retrieval.json")
    assert found["metrics"]["image_retrieval_recall@5"] == pytest.approx(5 / 6)  # texts find videos
    assert found["metrics"]["text_retrieval_recall@1"] == 1.0
    assert found["metrics"]["image_retrieval_recall@5_ci95_low"] < 5 / 6
    probe = parsed(files, "kinetics400_000000000000_vit_en_linear_probe.json")
    assert probe["metrics"]["lp_acc1"] == 0.5 and probe["metrics"]["lp_acc5"] == 1.0
    told = capsys.readouterr().err
    assert "adapter retrieval: no place in clip_benchmark for t2v_median_rank, t2v_mean_rank" in told
    assert "adapter multiple_choice: no place in clip_benchmark for accuracy" in told


def test_a_retrieval_that_was_trained_is_not_called_zero_shot(tmp_path: Path) -> None:
    save(tmp_path / "results", "msrvtt", RANKS, retrieval, "retrieval")  # it has a selection
    with pytest.raises(UserError, match="none of 1 run has a place"):
        exports.export([f"results={tmp_path / 'results'}", "to=clip_benchmark", f"out={tmp_path / 'out'}"])


def test_the_flat_table_has_a_row_per_score(exported: Callable[[str], dict[str, str]]) -> None:
    rows = list(csv.DictReader(exported("csv")["results.csv"].splitlines()))
    found = {(row["dataset"], row["metric_name"]): row for row in rows}
    assert len(found) == len(rows) == 6 + 1 + 2 + 10 + 1 + 1
    one = found["egoschema@mini", "accuracy"]
    assert float(one["ci_lower"]) < float(one["metric_value"]) < float(one["ci_upper"])
    assert (one["n_test"], one["n_videos"], one["n_failed"], one["chance"]) == ("15", "5", "3", "0.2")
    assert float(one["failed_right"]) == pytest.approx(11 / 15)
    assert found["msrvtt", "t2v_median_rank"]["metric_value"] == "3.5"


def test_copies_of_a_run_count_once_and_seeds_count_each(results: Path, tmp_path: Path) -> None:
    for place in ("first", "backup/second"):
        shutil.copytree(results, tmp_path / "results" / place)
    assert exports.export([f"results={tmp_path / 'results'}", "to=csv", f"out={tmp_path / 'two'}"]) == 0
    assert exports.export([f"results={results}", "to=csv", f"out={tmp_path / 'one'}"]) == 0
    assert (tmp_path / "two" / "results.csv").read_text() == (tmp_path / "one" / "results.csv").read_text()
    runs, _ = collect(tmp_path / "results")
    assert [run.name.split("/")[0] for run in runs] == ["backup"] * 6
    cells = list(csv.DictReader(board_csv.render_csv(runs).splitlines()))
    assert {cell["runs"] for cell in cells} == {"1"}


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1+cmd|' /C calc'!A0", "'+1+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\n=1"),
        ("a\r=1", "a\n=1"),
        ("\uff1d1", "'\uff1d1"),
        ("-1.5", "-1.5"),
        ("+3e-4", "+3e-4"),
        (-1.5, "-1.5"),
        ("a=b", "a=b"),
        ("", ""),
        (None, ""),
    ],
)
def test_no_cell_is_a_formula_and_numbers_stay_numbers(text: Any, cell: str) -> None:
    written = io.StringIO(board_csv.as_csv([{"x": text, "y": 1}]), newline="")
    assert list(csv.reader(written)) == [["x", "y"], [cell, "1"]]


def test_names_from_elsewhere_are_no_formulas_in_the_exports(tmp_path: Path) -> None:
    save(tmp_path / "results", "=task", CLASSES, top1_top5, "@probe", "-encoder")
    exports.export([f"results={tmp_path / 'results'}", "to=csv", f"out={tmp_path}"])
    (row, _) = csv.DictReader((tmp_path / "results.csv").read_text().splitlines())
    assert (row["dataset"], row["method"], row["name"]) == ("'=task", "'@probe", "'-encoder")
    (cell,) = csv.DictReader(board_csv.render_csv(collect(tmp_path / "results")[0]).splitlines())
    assert (cell["task"], cell["adapter"], cell["encoder"]) == ("'=task", "'@probe", "'-encoder")


def test_egoschema_gets_the_files_of_its_server_and_of_kaggle(exported: Callable[[str], dict[str, str]]) -> None:
    files = exported("egoschema")
    assert files == {
        "evalkit__demo/submission.json": '{\n "q0": 1,\n "q1": 0\n}\n',
        "evalkit__demo/submission.csv": "q_uid,answer\nq0,1\nq1,0\n",
    }


def test_egoschema_with_holes_is_not_written_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "results", "egoschema", [*ANSWERED, Row("q2", "q2.mp4", failure="no such file")], accuracy, "x")
    with pytest.raises(UserError, match="none of 1 run has a place"):
        exports.export([f"results={tmp_path / 'results'}", "to=egoschema", f"out={tmp_path / 'out'}"])
    assert "1 of 3 questions without an answer" in capsys.readouterr().err


def test_coco_has_captions_and_their_references(exported: Callable[[str], dict[str, str]], tmp_path: Path) -> None:
    files = exported("coco")
    said = parsed(files, "evalkit__demo/msrvtt_caption_results.json")
    assert said == [{"image_id": row.id, "caption": row.prediction or ""} for row in SAID]  # a failed one is empty
    coco = pytest.importorskip("pycocotools.coco", reason="needs pycocotools: pip install video-evalkit[captions]")
    truth = coco.COCO(tmp_path / "evalkit__demo/msrvtt_caption_annotations.json")
    found = truth.loadRes(str(tmp_path / "evalkit__demo/msrvtt_caption_results.json"))
    assert [one["caption"] for one in truth.imgToAnns["v0"]] == SAID[0].target
    assert found.imgToAnns["v1"][0]["caption"] == SAID[1].prediction


# --- what all formats do


@pytest.mark.parametrize("to", exports.formats())
def test_every_format_is_the_same_each_time(results: Path, tmp_path: Path, to: str) -> None:
    for out in ("one", "two"):
        assert exports.export([f"results={results}", f"to={to}", f"out={tmp_path / out}"]) == 0
    one, two = (sorted((tmp_path / out).rglob("*.*")) for out in ("one", "two"))
    assert [p.relative_to(tmp_path / "one") for p in one] == [p.relative_to(tmp_path / "two") for p in two]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, two, strict=True) if a.is_file())


# --- the scores of others


def test_scores_of_mteb_and_lm_eval_come_in_percent(exported: Callable[[str], dict[str, str]], tmp_path: Path) -> None:
    exported("mteb")
    exported("lm-eval")
    found = {(one.source, one.encoder, one.task, one.metric): one for one in foreign(tmp_path)}
    assert found["mteb", "evalkit/demo", "egoschema@mini", "main_score"].value == pytest.approx(100 * 8 / 15)
    assert found["lm-eval", "evalkit/demo", "egoschema@mini", "acc"].value == pytest.approx(100 * 8 / 15)
    assert found["lm-eval", "openai/clip-vit-base-patch16", "msrvtt", "t2v_median_rank"].value == 3.5
    assert {one.split for one in found.values()} == {"test"}
