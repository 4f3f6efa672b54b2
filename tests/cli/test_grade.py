"""`ttcjax grade`: counts, disagreements, and bad files in one line."""

import json

import pytest

from ttcjax.cli import program


@pytest.fixture
def rows(tmp_path):
    lines = [
        {"answer": "0.5", "gold": r"\frac{1}{2}", "ok": True, "text": {"out": r"so \boxed{0.5}"}},
        {"answer": "[1,2]", "gold": "(1,2)", "ok": True, "text": {"out": "it is"}},
        {"answer": None, "gold": 8, "ok": False, "text": {"out": "The answer is 8."}},
        {"answer": "20%", "gold": "0.2", "ok": True, "text": {"out": "#### 20%"}},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return str(path)


def test_verdicts_and_disagreements_are_told(capsys, rows):
    assert program.main(["grade", rows, "--verdict", "ok"]) == 0
    out = capsys.readouterr().out
    assert "2 of 4 right (50.0%)" in out
    assert "1 without an answer" in out
    assert "ok agrees on 3 of 4 (75.00%)" in out
    assert "line 2: wrong here and not by ok: answer '[1,2]', reference '(1,2)'" in out


def test_answers_are_read_out_of_solutions_and_conventions_are_options(capsys, rows):
    assert program.main(["grade", rows, "--text", "text.out", "--percent", "number", "--limit", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"rows": 3, "right": 2, "without_answer": 1, "second": {}}


def test_the_second_grader_is_math_verify_alone(capsys, rows):
    assert program.main(["grade", rows, "--second", "math-verify"]) == 0
    assert "math-verify agrees on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--gold", "target"], "line 1 has no field 'target'; name another with --gold"),
        (["--percent", "half"], "invalid choice"),
        (["--ordered_lists", "perhaps"], "neither True nor False"),
        (["--decimals", "99"], "decimals must lie in"),
    ],
)
def test_wrong_arguments_are_answered_in_one_line(capsys, rows, arguments, words):
    assert program.main(["grade", rows, *arguments]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1


def test_wrong_files_are_answered_in_one_line(capsys, tmp_path):
    (tmp_path / "list.jsonl").write_text('{"answer": "1", "gold": "1"}\n[1]\n')
    (tmp_path / "empty.jsonl").write_text("\n")
    for name, words in (("none", "there is no file"), ("list", "line 2 is no JSON object"), ("empty", "no lines")):
        assert program.main(["grade", str(tmp_path / f"{name}.jsonl")]) == 2
        assert words in capsys.readouterr().err
