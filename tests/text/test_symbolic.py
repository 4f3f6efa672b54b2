"""Answers compared by a process of its own: exactly, in time, and whatever happens to the process."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from ttcjax.runtime.errors import UserError
from ttcjax.text import grading
from ttcjax.text.grading import symbolic_worker

posix = pytest.mark.skipif(os.name != "posix", reason="signals end processes so on POSIX systems alone")


@pytest.fixture(scope="module")
def worker():
    worker = grading.SymbolicWorker(timeout=20.0)
    yield worker
    worker.close()


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        ("x+1", "1+x", True),
        (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}", True),
        (r"\text{Evelyn}", "Evelyn", True),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\pi/2)", True),
        ("(3,4)", "(4,3)", False),
        ("x+1", "x-1", False),
        ("$", "x", False),
        ("}{", "x", False),
        (r"\boxed", "x", False),
        ("\ud800", "x", False),
    ],
)
def test_symbolic_comparison(answer, gold, same):
    assert grading.grade(answer, gold) is same


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        (r"\frac{1}{2004!}", r"\frac{1}{2006!}"),
        ("10^{-20}", "10^{-21}"),
        (r"\frac{1}{10^{30}}", "0"),
        ("e^{-100}", "e^{-101}"),
        (r"2^{200}+1", "2^{200}"),
        (r"\sqrt{2^{200}+1}", "2^{100}"),
        (r"\sqrt{10^{600}+1}", "10^{300}"),
        ("10^{-20}+i", "10^{-21}+i"),
        ("(10^{-20}, 1)", "(10^{-21}, 1)"),
        ("(10^{-20}, 1, 2)", "(10^{-21}, 1, 2)"),
        ("[10^{-20}, 1]", "[10^{-21}, 1]"),
        (r"(-\infty, 10^{-20}) \cup (1, 2)", r"(-\infty, 10^{-21}) \cup (1, 2)"),
        (r"\{10^{-20}, 1\}", r"\{10^{-21}, 1\}"),
        (r"\begin{pmatrix} 10^{-20} \\ 1 \end{pmatrix}", r"\begin{pmatrix} 10^{-21} \\ 1 \end{pmatrix}"),
        ("x = 10^{-20}", "x = 10^{-21}"),
        ("10^{-20} < x < 1", "10^{-21} < x < 1"),
        ("x > 10^{-20}", "x > 10^{-21}"),
        ("10^{-20}x", "10^{-21}x"),
        ("x + 10^{-20}", "x"),
        ("x^2 = -1", "x^2 = -2"),
        ("(0.0000000001, 1)", "(0.0000000002, 1)"),
        (r"(0.333, 1)", r"(\frac13, 1)"),
        ("(1000000.5, 1)", "(1000001, 1)"),
        (r"\pi", "3.14159"),
        ("x = 0.333", r"x = \frac13"),
        (r"20\%", r"2000\%"),
    ],
)
def test_what_differs_is_told_apart_however_small_the_difference(worker, answer, gold):
    assert not worker.grade(answer, gold)
    assert not worker.grade(gold, answer)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        (r"\frac{1}{2004!}", r"\frac{1}{2004 \cdot 2003!}"),
        (r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt{2}"),
        (r"\sqrt{3+2\sqrt{2}}x", r"(1+\sqrt{2})x"),
        (r"\cos\frac{\pi}{5}", r"\frac{1+\sqrt5}{4}"),
        (r"\log 8", r"3\log 2"),
        (r"\sum_{k=1}^{10} k", "55"),
        ("(x+1)^2", "x^2+2x+1"),
        ("0.5x+0.25y", r"\frac{x}{2}+\frac{y}{4}"),
        (r"(-\infty, 0.5) \cup (1, 2)", r"(-\infty, \frac12) \cup (1, 2)"),
        (r"\begin{pmatrix} \frac{1}{2} \\ 1 \end{pmatrix}", r"\begin{pmatrix} 0.5 \\ 1 \end{pmatrix}"),
        # Rounded to six decimals or more, or of small numbers to six digits.
        (r"\pi", "3.14159265"),
        (r"\sqrt{2} \cdot 10^{12}", "1414213562373.1"),
        (r"\sqrt{2} \cdot 10^{-12}", "0.00000000000141421"),
        ("(0.333333, 1)", r"(\frac13, 1)"),
        (r"[0.166667, 1]", r"[\frac16, 1]"),
        (r"\{0.5, 0.333333\}", r"\{\frac13, \frac12\}"),
        ("x = 0.333333", r"x = \frac13"),
        (r"0.333333x", r"\frac{x}{3}"),
        # A percent sign is a unit and a factor.
        (r"20\%", "20"),
        (r"20\%", r"\frac15"),
        (r"237.5\%", "237.5"),
        (r"20\%", r"20.0\%"),
    ],
)
def test_what_is_equal_or_rounded_is_the_same(worker, answer, gold):
    assert worker.grade(answer, gold)
    assert worker.grade(gold, answer)


def test_a_comparison_that_hangs_is_cut_off_and_the_next_one_works():
    worker = grading.SymbolicWorker(timeout=2.0)
    try:
        assert worker.grade("x+1", "1+x")
        start = time.monotonic()
        assert not worker.grade("9^{9^{9^{9}}}", "x+1")
        assert time.monotonic() - start < 10
        assert not worker.running
        worker.timeout = 20.0
        assert worker.grade("x+2", "2+x"), "the process is started again after it was killed"
    finally:
        worker.close()


def test_hostile_text_is_not_run_as_code(worker, tmp_path):
    target = tmp_path / "proof"
    code = f"__import__('pathlib').Path('{target}').touch()"
    for text in (code, rf"\text{{{code}}}", f"{{{code}}}", f"$ {code} $", f"1, {code}", rf"\{{ {code}, 1 \}}"):
        assert not worker.grade(text, "x+1")
    assert not worker.grade("9**9**9**9", "x")
    assert not target.exists(), "model text was executed"


def test_a_worker_that_was_killed_from_outside_is_replaced(worker):
    assert worker.grade("2x", "x+x")
    worker._process.kill()
    worker._process.wait()
    assert worker.grade("3x", "x+2x")


def interfered(monkeypatch, worker, times, act):
    """Let `act(process)` happen the first `times` times that a question has been asked."""
    reply, seen = worker._reply, []

    def interfere(process, timeout):
        if timeout == worker.timeout and len(seen) < times:
            seen.append(process.pid)
            act(process)
            process.stdout.read()  # it may have been quicker
        return reply(process, timeout)

    monkeypatch.setattr(worker, "_reply", interfere)
    return seen


def kill(name):
    def act(process):
        process.send_signal(getattr(signal, name))
        process.wait()

    return act


@posix
@pytest.mark.parametrize("name", ["SIGKILL", "SIGUSR1", "SIGSEGV"])
def test_a_process_that_dies_over_a_question_is_asked_once_more(worker, monkeypatch, name):
    for answer, gold, same in (("3x", "x+2x", True), ("3x", "x+3x", False)):
        with monkeypatch.context() as patch:
            seen = interfered(patch, worker, 1, kill(name))
            assert worker.grade(answer, gold) is same, "a death from outside decided the verdict"
            assert seen
            assert worker._process.pid not in seen


@posix
def test_a_process_that_is_killed_twice_is_an_error_and_no_verdict(worker, monkeypatch):
    with monkeypatch.context() as patch:
        interfered(patch, worker, 2, kill("SIGKILL"))
        with pytest.raises(UserError, match="killed twice from outside"):
            worker.grade("4x", "x+3x")
    assert worker.grade("4x", "x+3x")


@posix
def test_a_question_that_crashes_the_process_twice_is_wrong(worker, monkeypatch):
    with monkeypatch.context() as patch:
        interfered(patch, worker, 2, kill("SIGSEGV"))
        assert not worker.grade("5x", "x+4x")
    assert worker.grade("5x", "x+4x")


@posix
def test_a_process_that_is_killed_before_it_has_started_is_started_again(monkeypatch):
    worker = grading.SymbolicWorker()
    reply, seen = worker._reply, []

    def killed(process, timeout):
        if not seen:
            seen.append(process.pid)
            kill("SIGKILL")(process)  # a SIGINT is ignored by programs that a shell starts in the background
        return reply(process, timeout)

    monkeypatch.setattr(worker, "_reply", killed)
    try:
        assert worker.grade("6x", "x+5x")
    finally:
        worker.close()


@pytest.mark.parametrize("where", ["question", "start"])
def test_an_interrupted_question_does_not_answer_the_next_one(monkeypatch, where):
    worker = grading.SymbolicWorker()
    with monkeypatch.context() as patch:
        if where == "question":
            assert worker.grade("2x", "x+x")

        def interrupt(process, timeout):
            raise KeyboardInterrupt

        patch.setattr(worker, "_reply", interrupt)
        with pytest.raises(KeyboardInterrupt):
            worker.grade("x+1", "1+x")
    try:
        assert not worker.grade("x+1", "x+2"), "the verdict on the question before was taken for this one's"
        assert worker.grade("x+2", "2+x")
    finally:
        worker.close()


@posix
def test_signals_to_a_group_of_processes_leave_the_process_alone_and_its_input_ends_it():
    process = subprocess.Popen(
        [sys.executable, "-P", symbolic_worker.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        assert process.stdout.read(1) == b"r"
        for number in (signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)
        process.stdin.write(json.dumps({"answer": "2x", "gold": "x+x", "timeout": 5.0}).encode() + b"\n")
        process.stdin.flush()
        assert process.stdout.read(1) == b"1"
    assert process.wait(10) == 0, "the process outlives its parent"


@posix
def test_ctrl_c_in_the_parent_changes_no_verdict():
    """The whole group is interrupted; the parent goes on, as a notebook does."""
    script = """
        import os, signal
        from ttcjax.text import grading

        worker = grading.SymbolicWorker()
        assert worker.grade("2x", "x+x")
        before = worker._process.pid
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
            os.killpg(0, number)
            assert worker.grade("3x", "x+2x")
        assert worker._process.pid == before
        worker.close()
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, env=environment, start_new_session=True, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
