"""What each cell of a study is asked: whose words count, what is trained once, and in which order."""

import re
from pathlib import Path

import pytest

from evalkit.config import named
from evalkit.config.config import Config
from evalkit.errors import UserError
from evalkit.launch import cells, local
from evalkit.launch.local import Ended
from evalkit.studies import files
from evalkit.studies.plan import Plan, plan, required_data
from evalkit.studies.run import check_data, describe, missing_folder, outcome

STUDY = """
title: T
x: cost.training.saved_bytes
y: top1
words:
  adapt: task=kinetics400 adapter=contrastive
  run: task=kinetics400 adapter=zero_shot controls=false
mini: {adapt: ckpt=random:vivit_demo encoder.dim=32 encoder.heads=2, run: canary=false egoschema.seed=3}
cells:
  - {name: a, adapt: ckpt=random:shortvivit_base, run: [canary=true, task=egoschema adapter=zero_shot]}
  - name: b
    adapt: ['ckpt={a.adapt} adapter.tune=2', adapter.mask_ratio=0.5]
    run: ckpt={adapt}
    mini: {adapt: seed=5}
  - {name: c, adapt: ckpt=random:shortvivit_base, run: canary=true}
  - {name: d, run: adapter=knn}
"""


def planned(folder: Path, *words: str, text: str = STUDY) -> Plan:
    file = folder / "mine.yaml"
    file.write_text(text)
    return plan(files.read(str(file)), [f"out={folder / 'out'}", *words])


def words_of(cell: cells.Cell) -> set[str]:
    return set(cell.words)


def test_lines_go_on_with_what_was_trained_and_the_same_is_trained_once(tmp_path: Path) -> None:
    found = planned(tmp_path, "ckpt=demo")
    (of_a,), (first, second), (of_c,) = (found.adapts[name] for name in "abc")
    assert of_a.config.options.out == of_c.config.options.out  # one adaptation for both
    assert first.config.options.ckpt == str(of_a.config.options.out)
    assert second.config.options.ckpt == str(first.config.options.out)
    assert found.runs["b"][0].config.options.ckpt == str(second.config.options.out)
    assert [run.config.options.ckpt for run in found.runs["a"]] == [str(of_a.config.options.out)] * 2
    assert found.runs["d"][0].config.options.ckpt == "demo"  # no line of it names an encoder
    assert [len(stage) for stage in found.stages()] == [1, 1, 1, 5 - 1]  # a and c also run the same
    assert found.folder == tmp_path / "out" / "study-mine"


def test_with_several_seeds_each_line_is_run_with_each_and_goes_on_with_the_same(tmp_path: Path) -> None:
    found, once = planned(tmp_path, "ckpt=demo", "seed=3,4"), planned(tmp_path, "ckpt=demo", "seed=4")
    assert found.of_seeds("b") == ["b, seed 3", "b, seed 4"] and once.of_seeds("b") == ["b"]
    for seed in (3, 4):
        (of_a,), (first, second) = found.adapts[f"a, seed {seed}"], found.adapts[f"b, seed {seed}"]
        assert first.config.options.ckpt == str(of_a.config.options.out)
        lines = [of_a, first, second, *found.runs[f"b, seed {seed}"]]
        assert {line.config.options.seed for line in lines} == {seed}
    assert [c.mark for c in found.adapts["b, seed 4"]] == [c.mark for c in once.adapts["b"]]  # it goes on from one
    assert [len(stage) for stage in found.stages()] == [2 * n for n in (1, 1, 1, 5 - 1)]
    assert found.folder == once.folder
    with pytest.raises(UserError, match="seed"):
        planned(tmp_path, "ckpt=demo", "seed=3,")


@pytest.mark.parametrize("twice", ["3,3", "3,03", "2,3,+3"])
def test_a_seed_that_is_given_twice_is_refused_however_it_is_written(tmp_path: Path, twice: str) -> None:
    with pytest.raises(UserError, match=f"seed={re.escape(twice)}: 3 is given twice"):
        planned(tmp_path, "ckpt=demo", f"seed={twice}")


@pytest.mark.parametrize("word", ["run.seed=5", "adapt.seed=3", "egoschema.seed=4"])
def test_several_seeds_are_for_all_lines(tmp_path: Path, word: str) -> None:
    """Runs that seem to be of several seeds and are of one would make the interval narrow."""
    with pytest.raises(UserError) as caught:
        planned(tmp_path, "ckpt=demo", "seed=3,4", word)
    assert str(caught.value) == f"seed=3,4 is for every line, and {word} for some: leave out one of them"
    with pytest.raises(UserError) as caught:
        planned(tmp_path, "ckpt=demo", f"{word},6")
    number = word.partition("=")[2]
    assert str(caught.value) == f"{word},6: several seeds are for all lines: seed={number},6"
    planned(tmp_path, "ckpt=demo", f"seed={number},6")  # as told


@pytest.mark.parametrize(
    ("line", "place"), [("run: adapter=knn", r"cells\[3\].run"), ("{run: canary=false", "mini")], ids=["cell", "mini"]
)
def test_a_line_has_one_seed(tmp_path: Path, line: str, place: str) -> None:
    text = STUDY.replace("mini: {adapt: ckpt=random:vivit_demo encoder.dim=32 encoder.heads=2, run", "mini: {run")
    key, _, word = line.partition(": ")
    with pytest.raises(UserError, match=f"mine.yaml: {place}.*: seed=1,2: a line has one seed; `evalkit study` takes"):
        planned(tmp_path, text=text.replace(line, f"{key}: '{word} seed=1,2'").replace("' egoschema.seed=3}", "'}"))


def test_the_words_of_the_miniature_count_and_make_no_other_encoder_of_a_trained_one(tmp_path: Path) -> None:
    found = planned(tmp_path, "mini=true", "ckpt=demo", "seed=1", "run.seed=2", "adapt.encoder.dim=48")
    assert found.folder.name == "study-mine@mini"
    (of_a,), (first, second) = found.adapts["a"], found.adapts["b"]
    assert {"ckpt=random:vivit_demo", "encoder.dim=48", "seed=1", "mini=true"} <= words_of(of_a)
    assert not {word for word in words_of(first) if word.startswith("encoder.") or "vivit_demo" in word}
    assert "seed=1" in words_of(second)  # the user's word goes before the cell's own
    plain, egoschema = found.runs["a"]
    assert {"canary=false", "seed=2"} <= words_of(plain) & words_of(egoschema)
    other = planned(tmp_path, "mini=true", "ckpt=demo")
    assert "seed=3" in words_of(other.runs["a"][1]) and "seed=3" not in words_of(other.runs["a"][0])
    assert "seed=5" in words_of(other.adapts["b"][0])


def test_the_miniature_of_a_cell_begins_with_an_encoder_of_its_own(tmp_path: Path) -> None:
    text = STUDY + "  - {name: e, adapt: 'ckpt={a.adapt} adapter.tune=2', mini: {adapt: ckpt=demo seed=7}}\n"
    (of_e,) = planned(tmp_path, "mini=true", "ckpt=demo", text=text).adapts["e"]
    assert {"ckpt=demo", "adapter.tune=2", "seed=7"} <= words_of(of_e)  # which is trained: no setting of another's
    assert not {word for word in words_of(of_e) if word.startswith("encoder.")}
    (of_e,) = planned(tmp_path, "ckpt=demo", text=text).adapts["e"]
    assert of_e.config.options.ckpt.startswith(str(tmp_path / "out" / "study-mine" / "adapted"))


def test_a_folder_is_known_by_its_configuration_and_by_the_files_that_it_names(tmp_path: Path) -> None:
    first = planned(tmp_path, "ckpt=demo").adapts["a"][0].config.options.out
    assert first.name.startswith("a-") and planned(tmp_path, "ckpt=demo").adapts["a"][0].config.options.out == first
    renamed = STUDY.replace("name: a,", "name: other,").replace("{a.adapt}", "{other.adapt}")
    first.mkdir(parents=True)
    assert planned(tmp_path, "ckpt=demo", text=renamed).adapts["other"][0].config.options.out == first
    changed = planned(tmp_path, "ckpt=demo", "adapt.adapter.epochs=3").adapts["a"][0].config.options.out
    assert changed != first


def test_what_a_line_names_is_trained_before_it(tmp_path: Path) -> None:
    """As its encoder or as anything else, such as a teacher."""
    student = "ckpt=random:vivit_demo adapter=masked_distillation adapter.teacher={late.adapt}"
    last = "  - {name: late, adapt: ckpt=random:shortvivit_base seed=7}\n"
    text = f"{STUDY}  - {{name: student, adapt: '{student}'}}\n{last}"
    found = planned(tmp_path, "ckpt=demo", text=text)
    (student_cell,), (late,) = found.adapts["student"], found.adapts["late"]
    stages = found.stages()
    assert late in stages[0] and student_cell in stages[1]
    ended = {late.mark: Ended(None, "it diverged")}
    assert missing_folder(found, student_cell, ended) == "it diverged"
    assert ended[student_cell.mark] == Ended(None, "it diverged")


def test_what_another_process_trained_meanwhile_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two studies at once, in one folder: one is late with a cell."""
    (cell,) = planned(tmp_path, "ckpt=demo").adapts["a"]

    def late(config: Config) -> None:
        (config.options.out / "adapters").mkdir(parents=True)
        raise UserError("out is taken")

    monkeypatch.setattr("evalkit.launch.processes.adapt", late)
    assert local.run(cell) == Ended(cell.config.options.out)

    def failing(config: Config) -> None:
        raise UserError("it diverged")

    (cell,) = planned(tmp_path, "ckpt=demo", "seed=4").adapts["a"]
    monkeypatch.setattr("evalkit.launch.processes.adapt", failing)
    assert local.run(cell) == Ended(None, "it diverged")


def test_a_record_that_cannot_be_read_ends_its_cell_alone(tmp_path: Path) -> None:
    found = planned(tmp_path, "ckpt=demo")
    (cell,) = found.adapts["a"]
    record = cell.config.options.out / "adapters" / "contrastive" / "adapter.json"
    record.parent.mkdir(parents=True)
    ended = {cell.mark: Ended(cell.config.options.out)}
    record.write_text('{"cost": {"training": {"flops": 3}}}')
    assert outcome(found, "a", ended).adapted == [{"cost": {"training": {"flops": 3}}}]
    record.write_text("{")
    failure = outcome(found, "a", ended).failure
    assert failure.startswith(f"cannot read {record}: ")
    assert failure.endswith(f": remove {cell.config.options.out}, and it is trained again")


def test_commas_in_a_run_are_of_its_value_but_of_settings_that_are_chosen_on_val(tmp_path: Path) -> None:
    of = "data.of=msrvtt:1,vatex:2"
    text = f"{STUDY}  - {{name: e, run: 'task=mixture adapter=retrieval {of} adapter.lr=1e-3,1e-4'}}\n"
    (run,) = planned(tmp_path, "ckpt=demo", text=text).runs["e"]
    assert run.config.data["of"] == "msrvtt:1,vatex:2"
    assert [point["lr"] for point in run.config.points] == [1e-3, 1e-4]
    shown = describe(files.read(str(tmp_path / "mine.yaml")), ["ckpt=demo"])
    assert "  evalkit sweep task=mixture adapter=retrieval controls=false 'data.of=\"msrvtt:1,vatex:2\"' " in shown
    planned(tmp_path, "ckpt=demo", text=text.replace("1e-3,1e-4", "1e-3"))
    shown = describe(files.read(str(tmp_path / "mine.yaml")), ["ckpt=demo"])
    assert f"  evalkit run task=mixture adapter=retrieval controls=false {of} adapter.lr=1e-3 " in shown
    with pytest.raises(UserError, match=r"cells\[4\].run \(e\): no task named 'egoschema,ssv2'"):
        planned(tmp_path, "ckpt=demo", text=f"{STUDY}  - {{name: e, run: 'task=egoschema,ssv2'}}\n")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["task=ssv2"], "task=ssv2: a study has its own tasks: egoschema, kinetics400"),
        (["egoscheme.data.subset=false"], "unknown key 'egoscheme.data.subset'. Did you mean 'egoschema.data.subset'?"),
        (["adapt.nonsense=1"], "unknown key 'nonsense'"),
        (["on=slurmm"], "on=slurmm: expected local, slurm or ray. Did you mean on=slurm?"),
        (["slurm.time=1"], "slurm.time=1 is for on=slurm, and the sweep runs on=local: leave out one of them"),
        (["seed"], "study mine: expected key=value, got 'seed'"),
    ],
)
def test_a_wrong_word_is_told(tmp_path: Path, words: list[str], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        planned(tmp_path, *words, *(["ckpt=demo"] if words else []))
    assert str(caught.value).startswith(expected)


def test_a_word_that_is_for_some_lines_alone_is_told_how_to_be_given(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        planned(tmp_path, "ckpt=demo", "adapter.mask_ratio=0.3")
    told = str(caught.value)
    assert told.startswith("unknown key 'adapter.mask_ratio': adapter 'zero_shot' has no such setting.")
    assert told.endswith(
        "; for the lines of one kind alone, write adapt.adapter.mask_ratio= or run.adapter.mask_ratio="
    )
    (cell,) = planned(tmp_path, "ckpt=demo", "adapt.adapter.mask_ratio=0.3").adapts["a"]  # as told
    assert cell.config.adapter["mask_ratio"] == 0.3


def test_a_line_that_is_wrong_in_itself_is_told_by_file_and_cell(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        planned(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'mine.yaml'}: cells[3].run (d): sweep needs ckpt=... ")
    with pytest.raises(UserError) as caught:
        planned(tmp_path, "ckpt=demo", text=STUDY.replace("adapter.mask_ratio=0.5", "adapter.mask_ratoi=0.5"))
    where = f"{tmp_path / 'mine.yaml'}: cells[1].adapt (b): "
    assert str(caught.value) == f"{where}unknown key 'adapter.mask_ratoi'. Did you mean 'adapter.mask_ratio'?"


def test_cells_that_need_each_other_are_told(tmp_path: Path) -> None:
    circle = STUDY.replace("ckpt=random:shortvivit_base, run: [", "'ckpt={b.adapt}', run: [")
    with pytest.raises(UserError, match="cells need each other's adapt: a -> b -> a"):
        planned(tmp_path, "ckpt=demo", text=circle)


def test_data_that_are_not_there_are_told_before_anything_is_run(tmp_path: Path) -> None:
    found = planned(tmp_path, "ckpt=demo", f"kinetics400.data.root={tmp_path}")
    assert required_data(found) == {"kinetics400": tmp_path, "egoschema": Path("data/egoschema")}
    with pytest.raises(UserError) as caught:
        check_data(found)
    advice = f"give egoschema.data.root=FOLDER, or mini=true; `evalkit study {tmp_path / 'mine.yaml'} --help` shows"
    assert advice in str(caught.value)
    check_data(planned(tmp_path, "ckpt=demo", "mini=true"))
    told = describe(found.study, ["ckpt=demo"])
    assert "egoschema.data.root=data/egoschema  is not there; read by a\n" in told
    without = describe(found.study, [])
    assert "ckpt=ENCODER is yours to name\n" in without and "ckpt=ENCODER out=" in without
    with pytest.raises(UserError, match="adapter.tune"):  # what else is wrong is told
        describe(found.study, ["adapter.tune=nothing"])


@pytest.mark.parametrize("name", files.studies())
def test_every_study_can_be_planned_and_its_miniature(name: str, tmp_path: Path) -> None:
    study = files.read(name)
    # Some are of an encoder that the user names.
    given = [] if any("ckpt=random:" in line for cell in study.cells for line in cell.adapt) else ["ckpt=demo"]
    for words in ([], ["mini=true"]):
        found = plan(study, [f"out={tmp_path}", *given, *words])
        assert set(found.runs) == {cell.name for cell in study.cells}
        assert bool(required_data(found)) == (not words)
    assert named.summary(study.file)
