"""Questions from files: MATH in its forms, one's own with any field names, AIME, AMC, TensorFlow Datasets' records."""

import dataclasses
import json
import pathlib
import urllib.request
from dataclasses import replace
from typing import Any

import pytest
from etils import epath

from ttcjax.config import ConfigError, DataConfig, ExperimentConfig, FieldsConfig, SamplerConfig, TokenizerConfig
from ttcjax.config.load import override
from ttcjax.data import gsm8k, loader, prepare
from ttcjax.data.file_set import FileSet
from ttcjax.data.reading import gradings, tfds_records
from ttcjax.data.screen import Fault
from ttcjax.data.sets import check, data_set
from ttcjax.data.task import Splits
from ttcjax.runtime.errors import MachineError, UserError
from ttcjax.runtime.stage import Inputs, Sink
from ttcjax.testing import folders

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data"
needs_math = pytest.mark.skipif(
    not (SHARED / "math_train_12k.jsonl").exists(), reason="needs ../shared/data/math_train_12k.jsonl"
)


def write(folder, **files):
    """Write rows as JSON lines: `train=[...]` is `train.jsonl`."""
    folder.mkdir(exist_ok=True)
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def problem(i, **changed):
    return {
        "problem": f"What is $\\frac{{{i}}}{{2}}$?",
        "solution": f"It is half of {i}.\nSo $\\boxed{{\\frac{{{i}}}{{2}}}}$.",
        "answer": f"\\frac{{{i}}}{{2}}",
        "subject": "Prealgebra",
        "level": i % 5 + 1,
        "unique_id": f"train/prealgebra/{i}.json",
    } | changed


def file_set(config: DataConfig) -> FileSet:
    found = data_set(config)
    assert isinstance(found, FileSet)
    return found


def read(name: str, folder: pathlib.Path, **settings: Any) -> tuple[DataConfig, Splits, list[Fault]]:
    """Return the settings, the splits of the files, and why lines cannot be used."""
    config = DataConfig(name=name, dir=str(folder), num_valid=2, **settings)
    check(config)
    return config, *file_set(config).read(config)


def test_math_of_any_spelling_of_levels_and_answers(tmp_path):
    odd = [
        problem(1, level="Level 3"),
        problem(3, level=None),
        problem(5, answer=""),
        problem(7, level="Level ?", subject=None, type="Algebra"),
        {key: value for key, value in problem(9).items() if key not in ("answer", "unique_id")},
    ]
    write(tmp_path, math_train_12k=[problem(i) for i in range(11, 31)], math_test_500=odd)
    config, splits, faults = read("math", tmp_path)
    assert not faults
    assert [(e.answer, e.level) for e in splits.test] == [("1/2", 3), ("3/2", 0), ("5/2", 1), ("7/2", 0), ("9/2", 5)]
    assert splits.test[3].subject == "Algebra"
    assert [e.id for e in splits.test[3:]] == ["train/prealgebra/7.json", "math-math_test_500-00005"]
    task = loader.task(config)
    for example in (*splits.train, *splits.valid, *splits.test):
        assert task.grade(task.extract(example.solution), example.answer)
        assert not task.grade(task.extract(example.solution), f"{example.answer} + 1")


def test_a_box_with_nothing_in_it_is_no_answer(tmp_path):
    empty = problem(2, answer="", solution=r"No primes: $\boxed{}$.")
    write(tmp_path, train=[*map(problem, range(10, 20)), empty], test=[problem(1)])
    _, splits, faults = read("math", tmp_path)
    assert [fault.where.rpartition("/")[2] for fault in faults] == ["train.jsonl, line 11"]
    assert len(splits.train) + len(splits.valid) == 10


def test_math_in_its_own_folders_is_the_same(tmp_path):
    files, tree = tmp_path / "files", tmp_path / "tree"
    rows = {"train": [problem(i) for i in range(12)], "test": [problem(i, unique_id=f"t{i}") for i in range(20, 23)]}
    write(files, **rows)
    for role, problems in rows.items():
        (tree / role / "prealgebra").mkdir(parents=True)
        for i, row in enumerate(problems):
            (tree / role / "prealgebra" / f"{i}.json").write_text(json.dumps(row, indent=2))
    _, flat, _ = read("math", files)
    _, nested, faults = read("math", tree)
    assert not faults
    assert nested == flat
    del rows["test"][0]["unique_id"]
    (tree / "test" / "prealgebra" / "0.json").write_text(json.dumps(rows["test"][0]))
    assert read("math", tree)[1].test[0].id == "test/prealgebra/0.json"


def test_two_files_for_one_split_are_told_apart_by_a_setting(tmp_path):
    write(tmp_path, train=map(problem, range(10)), test=[problem(50)], math_test_500=[problem(60)])
    with pytest.raises(UserError, match=r"test.jsonl and math_test_500.jsonl are both there: .*--data.test_file"):
        read("math", tmp_path)
    assert read("math", tmp_path, test_file="math_test_500.jsonl")[1].test[0].answer == "30"
    with pytest.raises(UserError, match=r"no file .*nowhere.jsonl"):
        read("math", tmp_path, train_file="nowhere.jsonl", test_file="test.jsonl")


@needs_math
def test_the_real_math():
    config, splits, faults = read("math", SHARED, num_test=500)
    assert (len(splits.test), sum(e.level == 0 for e in splits.train)) == (500, 2)
    assert [fault.where.rpartition(" ")[2] for fault in faults] == ["5530", "5532"]
    assert len(splits.train) > 11_900
    task = loader.task(config)
    assert all(task.grade(task.extract(e.solution), e.answer) for e in splits.test)


def test_fields_of_any_name_in_lines_or_a_list(tmp_path):
    plain = [{"question": f"{i} and {i}?", "answer": 2 * i, "solution": f"So {2 * i}."} for i in range(9)]
    nested = [{"q": {"text": row["question"]}, "gold": str(row["answer"]), "why": row["solution"]} for row in plain]
    write(tmp_path, train=plain, test=[{"problem": "1?", "Answer": 1.0, "level": 2, "id": 17}])
    _, first, _ = read("jsonl", tmp_path)
    assert [(e.question, e.answer, e.solution, e.level, e.id) for e in first.test] == [("1?", "1", "", 2, "17")]
    (tmp_path / "train.jsonl").unlink()
    (tmp_path / "train.json").write_text(json.dumps(nested, indent=1))
    with pytest.raises(UserError, match=r"entry 1: no field question or problem or prompt .*--data.fields.question"):
        read("jsonl", tmp_path)
    fields = FieldsConfig(question="q.text", answer="gold", solution="why")
    (tmp_path / "test.jsonl").write_text(json.dumps({"q": {"text": "1?"}, "gold": "1", "why": "One."}))
    _, second, faults = read("jsonl", tmp_path, fields=fields)
    assert not faults
    assert second.train == first.train, "what a field is called changes nothing"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "a?", "answer": True}, "no field answer or .* with the answer"),
        ({"question": "a?", "answer": ""}, "there is no answer"),
        ({"question": "a?", "answer": "so many"}, "the answer 'so many' is none of data.grading=number"),
        ({"question": "1?", "answer": 5}, "the same question has different answers"),
        ({"question": "b?", "answer": 5, "id": "0"}, "the id '0' stands in another line too"),
    ],
)
def test_a_bad_line_is_named(tmp_path, row, message):
    rows = [{"question": f"{i}?", "answer": i, "id": str(i)} for i in range(4)]
    write(tmp_path, test=[*rows, row])
    with pytest.raises(UserError, match=rf"test.jsonl, line \d: {message}"):
        loader.prepare(DataConfig(name="jsonl", dir=str(tmp_path), grading="number"), tmp_path / "out")


def test_the_answer_of_a_whole_solution(tmp_path):
    write(tmp_path, test=[{"question": "a?", "answer": "2+3=5\n#### 5"}, {"question": "b?", "answer": r"$\boxed{7}$"}])
    _, splits, _ = read("jsonl", tmp_path)
    assert [(e.answer, e.solution) for e in splits.test] == [("5", "2+3=5\n#### 5"), ("7", r"$\boxed{7}$")]


def test_aime_and_amc_are_one_file_without_training_questions(tmp_path):
    (tmp_path / "aime24.json").write_text(json.dumps([{"ID": "2024-I-1", "Problem": "p?", "Answer": "033"}]))
    config, splits, faults = read("aime", tmp_path)
    assert not faults
    assert [(e.id, e.answer, e.question) for e in splits.test] == [("2024-I-1", "33", "p?")]
    task = loader.task(config)
    assert task.grade(task.extract(r"Thus $\boxed{033}$."), "33")
    assert not task.grade(task.extract(r"Thus $\boxed{133}$."), "33")
    (tmp_path / "aime24.json").write_text(json.dumps([{"Problem": "p?", "Answer": 1000}]))
    with pytest.raises(UserError, match="a whole number from 0 to 999, not '1000'"):
        loader.prepare(DataConfig(name="aime", dir=str(tmp_path)), tmp_path / "out")
    write(tmp_path / "amc", amc=[{"problem": "a?", "answer": 27.0}, {"problem": "b?", "answer": r"\textbf{(C)}\ 12"}])
    config, splits, _ = read("amc", tmp_path / "amc")
    assert [e.answer for e in splits.test] == ["27", "C"]
    task = loader.task(config)
    for said, gold, right in (
        (r"\boxed{C}", "C", True),
        (r"\boxed{\text{(C)}}", "C", True),
        (r"\boxed{\textbf{(D)}\ 12}", "C", False),
        (r"\boxed{27}", "27", True),
        (r"\boxed{C}", "27", False),
    ):
        assert task.grade(task.extract(said), gold) is right, (said, gold)


def test_gradings_by_name():
    assert gradings.named("math").grade("0.5", r"\frac{1}{2}")
    assert not gradings.named("exact").grade("1 + 1", "2")
    assert gradings.named("number").extract("so 5 dollars.\n#### $1,250") == "1250"
    assert gradings.named("math").grade(r"20\%", "1/5")
    assert not gradings.named("math:percent=number").grade(r"20\%", "1/5")
    percent = r"\boxed{20\%}"
    for name, right in {
        "math": (True, True),
        "math:percent=number": (True, False),
        "math:percent=share": (False, True),
    }.items():
        one = gradings.named(name)
        assert (one.grade(one.extract(percent), "20"), one.grade(one.extract(percent), "1/5")) == right, name
    for name, words in {
        "maths": "must be one of math, number, exact, choice",
        "number:decimals=3": "number has no settings",
        "math:decimal=3": "no setting 'decimal'; those of math are percent",
        "math:percent=all": "percent must be one of either, number, share, not 'all'",
        "math:ignore_units=False": "ignore_units must be True",
        "math:decimals=x": "decimals must be a whole number",
        "math:decimals=99": r"decimals must lie in \[0, 15\]",
    }.items():
        with pytest.raises(ConfigError, match=words):
            gradings.named(name)


def test_settings_that_do_not_go_with_a_data_set_are_refused_with_the_settings(tmp_path):
    base = ExperimentConfig(data=DataConfig(name="math", dir=str(tmp_path)))
    for settings, words in {
        ("--data.grading", "maths"): "data.grading must be one of",
        ("--data.source", "tfds"): "TensorFlow Datasets has no MATH",
        ("--data.train_file", "a.jsonl", "--data.test_file", "a.jsonl"): "name two files",
        ("--data.name", "procmath", "--data.grading", "math"): "procmath has its own",
        ("--data.name", "procmath", "--data.source", "tfds"): "not for data.name=procmath",
    }.items():
        with pytest.raises(ConfigError, match=words):
            override(base, settings)
    named = override(base, ["--data.name", "jsonl", "--data.fields.question", "q", "--data.grading", "number"])
    assert named.data.fields.question == "q"


def experiment(data):
    return ExperimentConfig(data=data, tokenizer=TokenizerConfig(vocab_size=400), sampler=SamplerConfig(max_tokens=24))


def test_test_questions_alone_can_be_evaluated_on_and_not_trained_on(tmp_path):
    write(tmp_path, test=[{"question": f"{i}?", "answer": i} for i in range(6)])
    config = experiment(DataConfig(name="jsonl", dir=str(tmp_path)))
    with pytest.raises(UserError, match=r"no training questions here, and policy, prm.train need some: .*train_file"):
        folders.run_stage(prepare.STAGE, config, tmp_path, tmp_path / "data")
    settings = dataclasses.replace(prepare.Settings.of(config), trainings=())
    sink = Sink(epath.Path(tmp_path) / "data")
    manifest = prepare.run(settings, Inputs({}), sink)
    assert manifest["counts"] == {"train": 0, "valid": 0, "test": 6}
    assert {path.name for path in (tmp_path / "data").iterdir()} >= set(sink.files)
    _, splits = loader.askable(config.questions, tmp_path / "data")
    assert len(splits.test) == 6
    with pytest.raises(UserError, match=r"stage 'labels' needs training questions, .* test questions alone"):
        splits.to_train_on("labels")


def test_answers_alone_are_enough_but_for_training_on_solutions(tmp_path):
    rows = [{"question": f"{i}?", "answer": i} for i in range(30)]
    write(tmp_path, train=rows[:20], test=rows[20:])
    config = experiment(DataConfig(name="jsonl", dir=str(tmp_path), num_valid=4))
    with pytest.raises(UserError, match=r"stage 'policy' trains on reference solutions, .*--data.fields.solution"):
        folders.run_stage(prepare.STAGE, config, tmp_path, tmp_path / "data")
    assert file_set(config.data).read(config.data)[0].to_train_on("labels")[0].solution == ""
    rows[3]["solution"] = "So it is."
    write(tmp_path, train=rows[:20])
    with pytest.raises(UserError, match=r"19 examples cannot be used: .*the solution is empty"):
        folders.run_stage(prepare.STAGE, config, tmp_path, tmp_path / "data")


def test_only_the_first_test_questions_are_asked_and_models_stay_as_they_are(tmp_path):
    rows = [{"question": f"{i}?", "answer": i, "solution": f"So {i}."} for i in range(30)]
    write(tmp_path, train=rows[:20], test=rows[20:])
    config = experiment(DataConfig(name="jsonl", dir=str(tmp_path), num_valid=4))
    folders.run_stage(prepare.STAGE, config, tmp_path, tmp_path / "data")
    first = replace(config, sweep=replace(config.sweep, limit=3))
    everything = loader.askable(config.test_questions, tmp_path / "data")[1]
    some = loader.askable(first.test_questions, tmp_path / "data")[1]
    assert list(some.test) == everything.test[:3]
    assert list(some.train) == list(everything.train)
    assert first.questions == config.questions, "models would be trained again"


def test_gsm8k_of_tensorflow_datasets_is_that_of_the_files(tmp_path, monkeypatch):
    """The builder is TensorFlow Datasets' own, its download replaced by files."""
    from tensorflow_datasets.text.gsm8k.gsm8k import Gsm8k

    rows = [{"question": f"Ann has {i} pears. How many?", "answer": f"She has {i}.\n#### {i}"} for i in range(30)]
    write(tmp_path / "files", train=rows[:20], test=rows[20:])
    files = {role: tmp_path / "files" / f"{role}.jsonl" for role in ("train", "test")}
    monkeypatch.setattr(
        Gsm8k,
        "_split_generators",
        lambda self, dl_manager: {role: self._generate_examples(path) for role, path in files.items()},
    )
    monkeypatch.setattr(tfds_records, "require_network", lambda host: None)
    config = DataConfig(name="gsm8k", source="tfds", dir=str(tmp_path / "tfds"), num_valid=4)
    check(config)
    splits = gsm8k.DATA_SET.read(config)[0]
    own = gsm8k.DATA_SET.read(replace(config, source="files", dir=str(tmp_path / "files")))[0]

    def texts(split):
        return sorted((e.question, e.solution, e.answer) for e in split)

    assert texts(splits.test) == texts(own.test)
    assert texts([*splits.train, *splits.valid]) == texts([*own.train, *own.valid])
    monkeypatch.setattr(Gsm8k, "_split_generators", None)
    assert gsm8k.DATA_SET.read(config)[0] == splits, "what is prepared is read without a download"


def test_records_that_cannot_be_downloaded_are_told_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    assert gsm8k.DATA_SET.records is not None
    nowhere = dataclasses.replace(gsm8k.DATA_SET.records, host="nowhere.invalid")
    with pytest.raises(MachineError, match="no network"):
        tfds_records.lines(nowhere, "train", str(tmp_path))
