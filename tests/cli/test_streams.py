"""What reaches the streams of the command: any text on any of them, with nothing in it that acts on a terminal."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import pty
import re
import subprocess
import sys
import textwrap
import threading
from unicodedata import category

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from ttcjax import cli
from ttcjax.cli import show
from ttcjax.pipeline.solve import Reply, Solved
from ttcjax.text import terminal
from ttcjax.text.shown import shown

ROOT = str(pathlib.Path(__file__).parents[2])
HOSTILE = "π 😀 [bold]x[/] :smile: \x1b[41mred\x1b]0;title\x07 \x9b41m\x7f\r\u202eabc\u200b\udc9b"
"""What a terminal acts on or an encoding lacks, beside markup of Rich."""


def solved(text):
    return Solved(
        question=f"{text}\nsecond line",
        answer=text,
        steps=[(text, 0.9), ("Answer: 5", 0.75)],
        votes=[(text, 1.5, 2), (None, 0.0, 3)],
        generations=16,
        seconds=0.5,
    )


def revised(text):
    reply = Reply(answer=text, score=0.25, steps=[(text, True), (f"{text} again", False)], kept=True)
    return dataclasses.replace(solved(text), chains=((reply, reply),), chosen=(0, 1), generations=2)


def controls(text):
    return {c for c in text if category(c) in ("Cc", "Cs", "Zl", "Zp") and c != "\n"}


@contextlib.contextmanager
def stdout_of(kind, encoding, errors):
    """Put a pipe or a terminal in the place of stdout, and yield a list that comes to hold the bytes written to it."""
    read, write = pty.openpty() if kind == "terminal" else os.pipe()
    written: list[bytes] = []

    def drain():
        with contextlib.suppress(OSError):  # How the end of a terminal reads.
            while chunk := os.read(read, 1 << 16):
                written.append(chunk)

    reader = threading.Thread(target=drain)
    reader.start()
    before = sys.stdout
    sys.stdout = open(write, "w", encoding=encoding, errors=errors)  # noqa: SIM115 closed below
    try:
        yield written
    finally:
        sys.stdout.close()
        sys.stdout = before
        reader.join()
        os.close(read)


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.one_of(st.characters(), st.sampled_from(HOSTILE))),
    encoding=st.sampled_from(["utf-8", "ascii", "cp1252", "koi8-r"]),
    errors=st.sampled_from(["strict", "surrogateescape"]),  # What Python takes, the latter in the C locale.
)
@example(HOSTILE, "ascii", "strict")
@example(HOSTILE, "utf-8", "surrogateescape")
@example("\t\r\n\x85\u2028", "cp1252", "strict")
def test_what_is_printed_can_be_decoded_and_has_no_control_characters(kind, text, encoding, errors):
    with pytest.MonkeyPatch.context() as patch, stdout_of(kind, encoding, errors) as written:
        patch.setenv("TERM", "dumb")  # Where Rich writes no sequences of its own.
        patch.setenv("COLUMNS", "200")
        show.print_solved(solved(text))
        show.print_solved(revised(text))
        show.print_lines([f"1/2 {text}"])
    out = b"".join(written).decode(encoding)
    if kind == "terminal":
        out = out.replace("\r\n", "\n")
    assert not controls(out)
    assert out.splitlines()[-1].startswith("1/2 ")
    assert "(16generations,0.5s)" in "".join(out.split()), "the answer is cut short"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
@pytest.mark.parametrize("text", [HOSTILE, "[bold]2[/]", "π\x1b[2J", "\u202e5", "a\ud800", "1\u200b2"])
def test_answers_are_shown_by_the_one_function(monkeypatch, encoding, text):
    sink = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(sink, encoding=encoding, newline="\n"))
    monkeypatch.setenv("COLUMNS", "500")
    show.print_solved(solved(text))
    sys.stdout.flush()
    lines = sink.getvalue().decode(encoding).splitlines()
    seen = shown(text, holds=encoding)
    assert lines[0].rstrip() == seen
    assert lines[-1] == f"answer: {seen}   (16 generations, 0.5 s)"
    columns = {cell_len(line[: line.index(" 0.")]) for line in lines if re.search(r" 0\.\d\d\d +$", line)}
    assert len(columns) == 1, "columns are not measured as their text is shown"


@pytest.mark.parametrize("text", ["ππππππππ", "\x1b" * 12, "x" * 60, "\u202e 12345 " * 5])
def test_a_table_is_as_wide_as_its_text_is_shown_and_has_all_of_it(text):
    sink = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = terminal.Console(file=sink, width=40)
    table = terminal.SafeTable("name", "n", box=None)
    table.add_row(text, "1")
    console.print(table)
    sink.seek(0)
    lines = sink.read().splitlines()
    assert max(map(len, lines)) <= 40, "escapes were not counted"
    assert "".join(line[:36] for line in lines[1:]).replace(" ", "") == shown(text, holds="ascii").replace(" ", "")


SCRIPT = f"""
import sys
sys.path.insert(0, {ROOT!r})
from ttcjax import cli
from ttcjax.runtime import progress as metrics
from ttcjax.cli import program
program._start_logging()  # Before libraries whose import starts it: as the command does.
import ttcjax.pipeline.solve
from tests.cli.test_streams import HOSTILE, revised, solved
ttcjax.pipeline.solve.solve = lambda q, w, strategy, *_: (revised if "revise" in strategy else solved)(HOSTILE)
program._prepare_jax = lambda: None
folder = sys.argv[1]
status = [
    cli.main(["solve", HOSTILE, "--workdir", folder]),
    cli.main(["solve", HOSTILE, "--workdir", folder, "--strategy", "revise:s=2,p=2"]),
    cli.main(["list", folder]),
    cli.main(["config", folder + "/t.py"]),
    cli.main(["list", HOSTILE + "\\nttcjax: forged"]),
    cli.main(["run", HOSTILE, "--debug"]),
    cli.main(["config", folder + "/t.py", "--" + HOSTILE, "1"]),
    cli.main(["data", folder + "/t.py", "--sweep.strategies", HOSTILE]),
]
with metrics.progress(2, "π [b]bar[/]\\x1b[41m") as bar:
    bar.update(2, note="[u]\\u202e")
print("status", *status, flush=True)
"""
CONFIG = f"""
from ttcjax.config import ExperimentConfig
def get_config():
    return ExperimentConfig(name={HOSTILE!r})
"""
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    ("kind", "encoding", "env"),
    [
        ("pipe", "ascii", {"PYTHONIOENCODING": "ascii"}),
        ("file", "cp1252", {"PYTHONIOENCODING": "cp1252:strict"}),
        ("terminal", "ascii", {**C_LOCALE, "TERM": "dumb"}),
        ("terminal", "utf-8", {"LC_ALL": "C", "TERM": "xterm-256color"}),
    ],
)
def test_the_commands_on_odd_streams(tmp_path, kind, encoding, env):
    """Answers, lists, settings, errors, logs and bars: written whole, nothing acts, and every error is one line."""
    (tmp_path / "t.py").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT), encoding="utf-8")
    env = {k: v for k, v in os.environ.items() if not re.match("PYTHON|LC_|LANG|TERM|COLUMNS|NO_COLOR", k)} | env
    env |= {"PYTHONPATH": ROOT, "COLUMNS": "200"}
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path)]
    if kind == "pipe":
        done = subprocess.run(command, capture_output=True, env=env)
        raw_out, raw_err = done.stdout, done.stderr
    elif kind == "file":
        with open(tmp_path / "out", "wb") as out_file, open(tmp_path / "err", "wb") as err_file:
            subprocess.run(command, stdout=out_file, stderr=err_file, env=env)
        raw_out, raw_err = (tmp_path / "out").read_bytes(), (tmp_path / "err").read_bytes()
    else:
        primary, secondary = pty.openpty()
        process = subprocess.Popen(command, stdout=secondary, stderr=secondary, stdin=secondary, env=env)
        os.close(secondary)
        chunks = []
        with contextlib.suppress(OSError):
            while chunk := os.read(primary, 1 << 16):
                chunks.append(chunk)
        os.close(primary)
        process.wait()
        raw_out = raw_err = b"".join(chunks).replace(b"\r\n", b"\n")
    out, err = raw_out.decode(encoding), raw_err.decode(encoding)
    assert "status 0 0 0 0 2 2 2 2" in out, err
    if env.get("TERM", "").startswith("xterm"):
        own = r"\x1b\[(\d+(;\d+)*m|\?25[hl]|\d?[AK])"  # What Rich writes: styles, the cursor, lines drawn anew.
        assert "\x1b[41m" not in out
        out, err = (re.sub(own, "", text).replace("\r", "") for text in (out, err))
    assert not controls(out)
    assert not controls(err)
    assert "[bold]x[/] :smile: \\x1b[41mred\\x1b]0;title\\x07 \\x9b41m\\x7f" in out, "text is not shown as it is"
    errors = [line for line in err.splitlines() if line.startswith("ttcjax: ")]
    assert len(errors) == 4, "an error is one line"
    assert "forged" in errors[0]
    assert "Traceback (most recent call last)" in err
    name = re.escape(shown("π [b]bar[/]\x1b[41m", holds=encoding))
    assert re.search(name + r".*2/2.*\[u\]\\u202e", err), "progress does not show its name and note"
    found = json.JSONDecoder().raw_decode(out[out.index("{") :])[0]
    assert found["name"] == HOSTILE


def test_help_shows_settings_that_hold_anything(capsys, tmp_path):
    (tmp_path / "t.py").write_text(CONFIG, encoding="utf-8")
    with pytest.raises(SystemExit, match="0"):
        cli.main(["run", str(tmp_path / "t.py"), "--help"])
    out = capsys.readouterr().out
    assert not controls(re.sub(r"\x1b\[\d+(;\d+)*m", "", out))
    assert "\\x1b]0;title\\x07" in out


def test_an_error_of_our_own_is_shown_as_it_can_be(tmp_path):
    """The interpreter prints what nothing expected."""
    script = f"""
        import sys
        from ttcjax.cli import program
        program._take_large_pages = lambda: None
        def fail():
            raise ZeroDivisionError({HOSTILE!r})
        program.main = fail
        program.entry()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, cwd=tmp_path)
    err = done.stderr.decode()
    assert done.returncode == 1
    assert err.startswith("Traceback (most recent call last):\n")
    assert "ZeroDivisionError: π 😀" in err
    assert not controls(err)
