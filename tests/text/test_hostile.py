"""Texts made to hang, crash or be run: refused, or graded wrong, in time."""

import os
import random
import subprocess
import sys
import time

import pytest

from ttcjax.text import grading
from ttcjax.text.grading import worker

WORDS = r"""
\frac \sqrt \left( \right) ( ) [ ] { } \{ \} | ^ _ ** ! !! % \% $ \$ , ; : = < > \le \pm \cup \in \text{ \boxed{ & \\
\begin{pmatrix} \end{pmatrix} \sum_{k=1}^{ \int_0^ \lim_{x\to \log_ \sin \cos^{-1} \binom{ \overline{ \infty \pi e i x
y f( 0 1 2 9 99 123456789 1e9 0.1 .5 1/ /0 1/0 -1 and or the is answer Answer: #### lambda: exec( eval( 9^9^9^9
__import__('os')._exit(7) 9**9**9**9 99999! 10^{10^{10}} 2^{2^{2^{2^{2}}}} 1,000 1,5 ½ ² √ π ∞ ° ≤ 答案
"""
PIECES = [*WORDS.split(), " ", "\n", "\x00", "\u202e", "\ud800"]

GOLDS = ["x+1", r"\frac{1}{2}", "[0,1)", r"\begin{pmatrix}1\\2\end{pmatrix}", r"\text{E}", "x^2+y=3", r"\sum_{k=1}^n k"]


def hostile(rng):
    kind = rng.randrange(8)
    if kind == 0:
        return "".join(chr(rng.randrange(1, 0x3000)) for _ in range(rng.randrange(60)))
    if kind == 1:
        return rng.choice("([{|-\\^_!") * rng.randrange(1, 3000)
    if kind == 2:
        opener = rng.choice([r"\frac{", r"\sqrt{", "(", r"\left(", "x^{", r"\sin(", "2^", r"\sqrt", "|", "{", "f("])
        return opener * rng.randrange(1, 400) + "1" + rng.choice(["", "}" * 200, ")" * 100])
    if kind == 3:
        return "^".join(str(rng.randrange(2, 99)) for _ in range(rng.randrange(2, 9)))
    if kind == 4:
        number = rng.randrange(10 ** rng.randrange(1, 12))
        return f"{number}" + rng.choice(["!", "!!", "^{99999999}", "^{-999999999}", "^x^y", "e9999"])
    if kind == 5:
        terms = "+".join(f"x_{i}" for i in range(rng.randrange(1, 40)))
        return f"({terms})^{{{rng.randrange(1, 10 ** rng.randrange(1, 7))}}}"
    return rng.choice(["", " "]).join(rng.choice(PIECES) for _ in range(rng.randrange(1, 25)))


def graded(count):
    """Grade so many hostile texts; return the seconds that one took at most, and how often algebra was asked."""
    rng, slowest, asked = random.Random(7), 0.0, 0
    algebra = grading.SymbolicWorker.grade

    def ask(self, answer, gold):
        nonlocal asked
        assert not worker.heavy(answer), answer
        asked += 1
        return algebra(self, answer, gold)

    grading.SymbolicWorker.grade = ask
    try:
        for n in range(count):
            text, gold = hostile(rng), GOLDS[n % len(GOLDS)]
            start = time.process_time()
            assert not grading.grade(text, gold), (text, gold)
            grading.grade(gold, text)
            grading.extract_answer(text)
            grading.answer_key(text)
            slowest = max(slowest, time.process_time() - start)
    finally:
        grading.SymbolicWorker.grade = algebra
    return slowest, asked


def test_hostile_texts_are_graded_wrong_in_time():
    slowest, _ = graded(200)
    assert slowest < 5, "one text alone takes seconds"


@pytest.mark.slow
def test_ten_thousand_hostile_texts_are_graded_wrong_in_time():
    """In a process without the type checks of tests, with the real process for computer algebra."""
    code = "import test_hostile; print(*test_hostile.graded(10_000))"
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    slowest, asked = done.stdout.split()
    assert float(slowest) < 3
    assert int(asked) < 1000, "computer algebra is asked about what is no mathematics"


@pytest.mark.parametrize(
    "text",
    [
        "9^9^9^9",
        "9^{9^{9^{9}}}",
        "9**9**9**9",
        "10^{10^{100}}",
        "(x+1)^{1000000}",
        "99999999!",
        "((10!)!)!",
        r"\binom{1000000000}{500000000}",
        "(" * 5000 + "1" + ")" * 5000,
        r"\frac{" * 900 + "1",
        r"\sqrt" * 900 + "2",
        "-" * 900 + "1",
        "1" * 5000,
        "2^" * 400 + "2",
        "e^{e^{e^{e^{e}}}}",
        r"\sin(10^{10^{10}})",
        "1e999999999",
        "x" * 900,
        "+".join("abcdefghij" * 40),
        r"\begin{pmatrix}" + "1&" * 400 + r"1\end{pmatrix}",
        ",".join(map(str, range(300))),
        "__import__('os').system('touch /tmp/proof')",
        r"\text{__import__('os')._exit(7)}",
        "lambda: exec('import os')",
    ],
)
def test_what_would_take_forever_takes_no_time(monkeypatch, text):
    def ask(self, answer, gold):
        raise AssertionError(f"computer algebra is asked about {answer!r} and {gold!r}")

    monkeypatch.setattr(grading.SymbolicWorker, "grade", ask)
    start = time.process_time()
    for gold in ("x+1", "2", r"\frac{1}{2}", "1, 2, 3"):
        assert not grading.grade(text, gold)
        assert not grading.grade(gold, text)
    grading.answer_key(text)
    grading.extract_answer(text)
    assert time.process_time() - start < 3


def test_hostile_text_is_not_run_as_code(tmp_path):
    target = tmp_path / "proof"
    code = f"__import__('pathlib').Path('{target}').touch()"
    for text in (
        code,
        rf"\text{{{code}}}",
        f"$ {code} $",
        f"1, {code}",
        rf"\sum_{{k={code}}}^n k",
        rf"\boxed{{{code}}}",
    ):
        assert not grading.grade(text, "x+1")
        assert not grading.math_verify(text, "x+1")
        grading.answer_key(text)
        grading.extract_answer(text)
    assert not target.exists(), "model text was executed"


@pytest.mark.parametrize(
    "piece",
    ["answer is $", "answer ", "\n", " ", "#### \n", "\\boxed{", "\\boxed{1} and ", "is ", "I hope it ", "$1$ is "],
)
def test_long_texts_are_read_in_time(piece):
    text = piece * (50_000 // len(piece))
    start = time.process_time()
    grading.extract_answer(text)
    assert not grading.grade(text, "5")
    assert time.process_time() - start < 5, "the time is quadratic in the length"
