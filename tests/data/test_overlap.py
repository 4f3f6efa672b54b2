"""Test questions in training data: found by `ttcjax data check`, and its exit status."""

import json

import pytest

from ttcjax.cli import program
from ttcjax.config import DataConfig
from ttcjax.data import procmath
from ttcjax.data.overlap import matches
from ttcjax.data.overlap.question_words import words
from ttcjax.data.procmath import data_set as procmath_data_set
from ttcjax.data.task import Example

CONFIG = """\
from ttcjax.config import DataConfig, ExperimentConfig


def get_config():
    return ExperimentConfig(data=DataConfig(name="gsm8k", dir={dir!r}, num_valid=2))
"""

LONG = "A farmer walks to the market with 14 baskets of red apples and sells 9 of them before noon. How many are left?"


def example(i, question):
    return Example(f"test-{i}", question, "", "1", 0, "")


def found(test, *others, **settings):
    texts = [(f"text {i}", text) for i, text in enumerate(others)]
    return matches.find([example(0, test)], texts, **({"run": 8, "share": 0.5} | settings)).matches


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is $\\dfrac{1}{2}+3$?", "what is \\(\\frac12 + 3\\)"),
        ("It costs $1,250. Why?", "It  costs 1250 - why".replace(" -", "")),
        ("Solve $\\left(x\\right)=2$", "Solve (x) = 2."),
        ("Caf\u00e9 \uff11?", "Cafe\u0301 1"),
    ],
)
def test_typography_makes_no_other_question(one, other):
    assert [match.kind for match in found(one, other)] == ["text"]


def test_names_make_no_other_question_and_numbers_do():
    ann, bob = "Ann has 3 pears and Tom has 4. How many?", "Bob has 3 pears and Mary has 4. How many?"
    assert [match.kind for match in found(ann, bob)] == ["names"]
    assert not found(ann, bob.replace("3", "5"))
    assert words("ELLIPSE or TOOT", names=False) == ("ellipse", "or", "toot"), "a word in capitals is no name"


def test_runs_of_words_are_counted_as_a_count_by_hand_does():
    other = f"Here is one more. {LONG.replace('red', 'green')}"
    tokens, others = words(LONG), words(other)
    runs = {tokens[i : i + 8] for i in range(len(tokens) - 7)}
    share = len([one for one in runs if any(others[i : i + 8] == one for i in range(len(others)))]) / len(runs)
    [match] = found(LONG, "nothing of it", other, share=0.1)
    assert (match.kind, match.where, match.share) == ("words", "text 1", share)
    assert found(LONG, other, share=share)
    assert not found(LONG, other, share=share + 0.01)
    assert not found("How many are left?", f"{LONG} And how many are left of them?"), "too short for a run"


def test_the_worst_pair_of_a_question_is_kept():
    near = LONG.replace("red", "green")
    assert [match.kind for match in found(LONG, near, LONG, near)] == ["text"]


def test_the_embedded_domain_is_judged_by_the_rule_of_its_split(monkeypatch):
    config = DataConfig(num_train=1000, num_valid=50, num_test=105)
    assert not matches.check(config).matches, "splits share a form"
    pool, tests = procmath_data_set.DATA_SET.pools(config)
    assert [len(pool), len(tests)] == [1050, 105]
    leaked = [*pool, Example("leak", tests[3].question.replace("?", " ?"), "", "", 1, tests[3].subject)]
    monkeypatch.setattr(procmath_data_set.Procmath, "pools", lambda self, config: (leaked, tests))
    [match] = matches.check(config).matches
    assert (match.id, match.where, match.kind) == (tests[3].id, "leak", "text")
    assert procmath.generate is not None


def write(folder, train, test):
    folder.mkdir()
    for name, questions in (("train", train), ("test", test)):
        rows = [{"question": question, "answer": "So it is.\n#### 7"} for question in questions]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_command_prints_what_was_found_and_says_it_by_its_status(tmp_path, capsys):
    many = [f"What is {i} and {i}?" for i in range(10)]
    write(tmp_path / "files", [*many, LONG], [LONG, "What is 100 and 1?", "What is 5  and 5?"])
    path = tmp_path / "config.py"
    path.write_text(CONFIG.format(dir=str(tmp_path / "files")))
    assert program.main(["data", "check", str(path)]) == 3
    out = capsys.readouterr().out
    assert "2 of 3 test questions found in 11 training questions" in out
    assert "gsm8k-test-00001 is in gsm8k-train-00011: the same text" in out
    assert program.main(["data", "check", str(path), "--limit", "1", "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["tested"], told["counts"]["text"], told["matches"][0]["id"]) == (1, 1, "gsm8k-test-00001")
    other = tmp_path / "other"
    (other / "deep").mkdir(parents=True)
    (other / "deep" / "page.md").write_text(f"# Page\n\nWhat is 100\nand 1?\n\n{'word ' * 50}")
    (other / "rows.jsonl").write_text(json.dumps({"messages": [{"content": "hello"}]}) + "\n")
    assert program.main(["data", "check", str(path), "--against", str(other)]) == 3
    out = capsys.readouterr().out
    assert "1 of 3 test questions found in 4 texts" in out
    assert "page.md, paragraph 2" in out
    (other / "deep" / "page.md").write_text("nothing")
    assert program.main(["data", "check", str(path), "--against", str(other)]) == 0
    (other / "rows.jsonl").write_text("{")
    assert program.main(["data", "check", str(path), "--against", str(other)]) == 2
    assert "rows.jsonl, line 1: not valid JSON" in capsys.readouterr().err
