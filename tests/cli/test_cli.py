"""The command line: what it prints, and that bad input gives one line and the right exit status."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import types
from typing import Any

import pytest
from etils import epath

from tests.eval.report import test_report as reports
from ttcjax import cli
from ttcjax import config as config_lib
from ttcjax.cli import show
from ttcjax.config import ExperimentConfig
from ttcjax.config.load import override
from ttcjax.eval.report import catalogue, report, summary_file
from ttcjax.eval.sections import accuracy
from ttcjax.pipeline import dry_run, plan, stages, sweep
from ttcjax.pipeline import run as pipeline
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.shards import Part
from ttcjax.runtime.stop import Stopped
from ttcjax.testing import folders

CONFIG = """
from ttcjax.config import ExperimentConfig
def get_config():
    return ExperimentConfig(name="t")
"""

REPORT_CONFIG = """
from ttcjax.config import DataConfig, ExperimentConfig, SweepConfig
def get_config():
    sweep = SweepConfig(samples=4, budgets=(1, 4), strategies=("majority",), bootstrap=10)
    return ExperimentConfig(name="t", data=DataConfig(num_test=2), sweep=sweep)
"""


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "t.py"
    path.write_text(CONFIG)
    return str(path)


def fails(capsys, *arguments: str) -> tuple[int, str]:
    """Run the command, and return its exit status and the one line it printed on stderr."""
    status = cli.main(arguments)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, f"an error is one line, not:\n{err}"
    assert err.startswith("ttcjax: ")
    return status, err


def test_config_prints_the_resolved_settings(capsys, config_file):
    arguments = ["--sweep.budgets", "1", "2", "--model.tie_embeddings", "False", "--model.query-scale", "0.5"]
    assert cli.main(["config", config_file, *arguments, "--workdir", "gs://bucket/run"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["sweep"]["budgets"] == [1, 2]
    assert values["model"]["tie_embeddings"] is False
    assert values["model"]["query_scale"] == 0.5
    assert values["workdir"] == "gs://bucket/run"
    assert values["policy"] == json.loads(json.dumps(values["policy"])), "settings that were not named stay"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--policy.stpes", "3"], "--policy.stpes; did you mean --policy.steps?"),
        (["--steps", "3"], "did you mean --policy.steps?"),
        (["--policy.steps=3", "--zzz=1"], "unknown setting --zzz; `ttcjax run CONFIG --help` lists them"),
        (["--policy.steps", "many"], "--policy.steps"),
        (["--policy.steps"], "--policy.steps"),
        (["--policy.steps", "-4"], "policy: steps must be positive, not -4"),
        (["--policy.steps", "3", "4"], "unexpected argument '4'"),
        (["--data.name", "mnist"], "procmath"),
        (["--data.name", "gsm8k"], "--data.dir"),
        (["--sweep.budgets", "1,2"], "--sweep.budgets"),
        (["--sampler.max_tokens", "300"], "sampler.max_tokens must be less than 256"),
        (["--model.tie_embeddings"], "--model.tie_embeddings"),
        (["--policy.steps", "three"], "--policy.steps: must be a whole number, not 'three'"),
        (["--sampler.temperature", "hot"], "--sampler.temperature: must be a number, not 'hot'"),
        (["--labels.seed", "-1"], "ttcjax: labels.seed must lie in"),
    ],
)
def test_wrong_settings_are_answered_in_one_line(capsys, config_file, arguments, words):
    status, line = fails(capsys, "config", config_file, *arguments)
    assert status == 2
    assert words in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no config file"),
        ("x = 1\n", "no get_config()"),
        ("def get_config():\n    return 3\n", "must return an ExperimentConfig, not int"),
        ("import nothing_of_that_name\n", "line 1: ModuleNotFoundError"),
        ("def get_config():\n    y = 1\n    return 1 / 0\n", "line 3: ZeroDivisionError"),
        ("def get_config(:\n", "line 1: SyntaxError"),
        (
            "from ttcjax.config import DataConfig\ndef get_config():\n    return DataConfig(num_test=0)\n",
            "num_test must be",
        ),
    ],
)
def test_broken_config_files_are_answered_in_one_line(capsys, tmp_path, text, words):
    path = tmp_path / "broken.py"
    if text is not None:
        path.write_text(text)
    status, line = fails(capsys, "config", str(path))
    assert status == 2
    assert words in line
    assert str(path) in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["rnu"], "invalid choice: 'rnu'"),
        (["run"], "required: CONFIG; see `ttcjax run --help`"),
        (["run", "--policy.steps", "3"], "--policy.steps"),
        (["solve", "1 + 1?"], "--workdir"),
        (["list", "no/such/folder"], "no/such/folder: `ttcjax run"),
    ],
)
def test_wrong_commands_are_answered_in_one_line(capsys, arguments, words):
    status, line = fails(capsys, *arguments)
    assert status == 2
    assert words in line


def test_help_teaches(capsys):
    for arguments in (["--help"], ["run", "--help"]):
        with pytest.raises(SystemExit, match="0"):
            cli.main(arguments)
    text = capsys.readouterr().out
    assert "ttcjax run configs/procmath_tiny.py" in text
    assert "JAX_COMPILATION_CACHE_DIR" in text
    assert all(stage.name in text for stage in stages.STAGES)


def test_the_help_of_sweep_shows_one_host_four_processes_and_a_job_array(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["sweep", "--help"])
    text = capsys.readouterr().out
    assert "ttcjax sweep configs/procmath_tiny.py --dry-run" in text
    assert "for i in 1 2 3 4; do ttcjax sweep CONFIG --workdir /nfs/runs/a --part $i/4 & done; wait" in text
    assert "--array=1-16" in text
    for flag in ("--dry-run", "--json", "--part I/K"):
        assert flag in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--part", "5/4"], "--part must be I/K with I from 1 to K, such as 2/4, not '5/4'"),
        (["--part"], "argument --part: expected one argument"),
        (["--json"], "add --dry-run"),
        (["--dry"], "unknown setting --dry"),
        (["--sweep.samples", "3"], "sweep.samples (3) must be at least the largest budget"),
        (["--sweep.strategies", "bema:width=4", "--dry-run"], "did you mean 'beam'?"),
    ],
)
def test_wrong_sweeps_are_answered_in_one_line(capsys, config_file, tmp_path, arguments, words):
    status, line = fails(capsys, "sweep", config_file, "--workdir", str(tmp_path / "w"), *arguments)
    assert status == 2
    assert words in line
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("flags", [[], ["--dry-run"], ["--part", "1/2"]])
def test_a_sweep_without_models_names_the_commands_that_make_them(capsys, config_file, tmp_path, flags):
    typed = f"{config_file} --workdir {tmp_path / 'w'}"
    status, line = fails(capsys, "sweep", config_file, "--workdir", str(tmp_path / "w"), *flags)
    assert status == 2
    assert " && ".join(f"ttcjax {name} {typed}" for name in ("data", "policy", "labels", "prm")) in line


@pytest.mark.parametrize("place", ["before", "between", "after"])
def test_flags_of_a_sweep_stand_anywhere_among_its_settings(capsys, monkeypatch, config_file, place):
    asked: list[Any] = []

    def run_part(config, part, *, command):
        asked.append((config.sweep.budgets, config.workdir, str(part), command))
        return {}

    monkeypatch.setattr(sweep, "run_part", run_part)
    monkeypatch.setattr(sweep, "waits_for", lambda config: ["bank (2 of 8 shards missing)"])
    flag, rest = ["--part=3/4"], ["--sweep.budgets", "1", "2"]
    arguments = {
        "before": [*flag, config_file, *rest, "--workdir", "w"],
        "between": [config_file, *rest, *flag, "--workdir", "w"],
        "after": [config_file, *rest, "--workdir", "w", *flag],
    }[place]
    assert cli.main(["sweep", *arguments]) == 0
    typed = f"{config_file} --sweep.budgets 1 2 --workdir w"
    workdir = os.path.abspath("w")
    assert asked == [((1, 2), workdir, "3/4", typed)], "the settings alone make the command that is typed again"
    assert capsys.readouterr().out == (
        "part 3/4 is done and waits for bank (2 of 8 shards missing): the last part completes it, or "
        f"`ttcjax sweep {typed}` once no part runs\n"
    )


def test_a_dry_run_is_text_or_json(capsys, monkeypatch, config_file):
    cell = plan.Cell("bank", (("sample", 4),), 1, 10, 2, 1, plan.Amount(40), plan.Amount(20), plan.BOUND, None)
    found = plan.Plan((cell,), Part(1, 1), 2, ("majority",))
    monkeypatch.setattr(sweep, "plan", lambda config, part, *, command: found)
    monkeypatch.setattr(sweep, "run", lambda *_, **__: pytest.fail("a dry run ran"))
    assert cli.main(["sweep", config_file, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["stage", "strategy"]
    assert lines[1].split()[:6] == ["bank", "sample", "4", "1", "1/2", "20"]
    assert cli.main(["sweep", config_file, "--dry-run", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["left"]["generations"] == 20
    assert values["cells"][0]["shards_left"] == 1
    assert values["workdir"] == os.path.abspath(ExperimentConfig().workdir)


@pytest.mark.parametrize("command", ["run", "bank"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_a_limit_is_a_setting_and_a_line_says_so(monkeypatch, caplog, config_file, command, place):
    asked: list[Any] = []
    monkeypatch.setattr(
        dry_run, "plan", lambda config, *, only, command: asked.append((config.sweep.limit, command)) or []
    )
    flag = ["--limit", "7"]
    before, after = (flag, []) if place == "before" else ([], flag)
    with caplog.at_level("INFO", logger="ttcjax"):
        assert cli.main([command, *before, config_file, *after, "--dry-run", "--json"]) == 0
    assert asked == [(7, f"{config_file} --sweep.limit 7")], "a command that is typed again has it too"
    assert caplog.messages == ["the first 7 test questions alone (--limit)"]


def test_help_after_a_config_lists_its_settings(capsys, config_file):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["policy", config_file, "--policy.steps", "7", "--help"])
    text = capsys.readouterr().out
    assert "Optimizer steps" in text, "the docstrings of the settings are their help"
    assert f"usage: ttcjax policy {config_file}" in text


def test_a_missing_stage_is_named_with_its_command(capsys, config_file, tmp_path):
    status, line = fails(capsys, "labels", config_file, "--workdir", str(tmp_path / "w"))
    assert status == 2
    assert f"run `ttcjax data {config_file} --workdir {tmp_path / 'w'}` first" in line


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (UserError("the\nfix"), 2, "ttcjax: the fix"),
        (KeyboardInterrupt(), 130, "interrupted; run the same command again"),
        (Stopped(), 143, "SIGTERM; run the same command again"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a/b"),
            1,
            "no space left on the disk at a/b: free some space",
        ),
        (ValueError("RESOURCE_EXHAUSTED: write failed: No space left on device"), 1, "no space left on the disk"),
        (
            PermissionError(errno.EACCES, "Permission denied", "a/b"),
            1,
            "permission denied at a/b: run as a user who may",
        ),
    ],
)
def test_errors_of_a_stage_become_one_line(capsys, monkeypatch, config_file, error, status, words):
    def run(config, **_):
        raise error

    monkeypatch.setattr(pipeline, "run", run)
    found, line = fails(capsys, "run", config_file)
    assert found == status
    assert words in line


def test_a_full_disk_behind_another_error_is_seen(capsys, monkeypatch, config_file):
    def run(config, **_):
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "x")
        except OSError as error:
            raise RuntimeError("checkpoint failed") from error

    monkeypatch.setattr(pipeline, "run", run)
    status, line = fails(capsys, "run", config_file)
    assert status == 1
    assert "no space left" in line


def test_bugs_are_not_hidden(monkeypatch, config_file):
    def run(config, **_):
        raise ZeroDivisionError

    monkeypatch.setattr(pipeline, "run", run)
    with pytest.raises(ZeroDivisionError):
        cli.main(["run", config_file])


def test_debug_shows_the_traceback(capsys, tmp_path):
    assert cli.main(["config", str(tmp_path / "none.py"), "--debug"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("ttcjax: no config file")


def test_distributed_outside_a_job_is_answered_in_one_line(capsys, config_file):
    status, line = fails(capsys, "run", config_file, "--distributed")
    assert status == 2
    assert "--distributed found no multi-host job" in line


def test_list_shows_every_stage(capsys, tmp_path):
    tokenizer = tmp_path / "data" / "tokenizer.model"
    tokenizer.parent.mkdir()
    tokenizer.write_text("pieces")
    folders.complete(tmp_path / "data", fingerprint="0123456789abcdef", seconds=2.5)
    assert cli.main(["list", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["data", "complete", "2.5", "s", "0123456789abcdef"]
    assert [line.split()[:2] for line in lines[1:]] == [[s.name, "missing"] for s in stages.STAGES[1:]]
    tokenizer.write_text("piece")
    assert cli.main(["list", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("data         damaged: tokenizer.model has 5 bytes of 6")


@pytest.mark.parametrize("command", ["run", "report"])
def test_a_run_ends_with_its_tables_and_the_place_of_its_figures(capsys, monkeypatch, tmp_path, command):
    path = tmp_path / "t.py"
    path.write_text(REPORT_CONFIG)
    workdir = tmp_path / "a_long_name_that_the_terminal_must_not_break_into_lines" / ":smile:"
    (workdir / "report").mkdir(parents=True)
    for name in ("b.png", "a.png", "a.svg", "verifiers.png", "index.html"):
        (workdir / "report" / name).touch()
    reports.write(epath.Path(tmp_path / "made_up"), *reports.make_rows())
    summary = report.results(reports.CONFIG, epath.Path(tmp_path / "made_up")).summary
    result = summary_file.encode(summary)
    monkeypatch.setattr(pipeline, "run", lambda config, **_: {"report": {"result": result}})
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli.main([command, str(path), f"--workdir=~/{workdir.relative_to(tmp_path)}"]) == 0
    out = capsys.readouterr().out
    assert "accuracy in % by budget N" in out
    assert f"{100 * summary.of(accuracy.SECTION).strategies['majority'][8].mean:.1f}" in out
    assert catalogue.line("verifiers").startswith("Fig. 14 (ICLR 13 and 15): ")
    assert [line for line in out.splitlines() if str(workdir) in line] == [
        f"{catalogue.line('verifiers')}: {workdir}/report/verifiers.png",
        f"figure: {workdir}/report/a.png",
        f"figure: {workdir}/report/b.png",
        f"all of it on one page: {workdir}/report/index.html",
        f"every number: {workdir}/summary.json",
    ]


def test_a_stage_other_than_the_report_prints_no_table(capsys, monkeypatch, config_file):
    monkeypatch.setattr(pipeline, "run", lambda config, **_: {"data": {"result": {}}})
    assert cli.main(["data", config_file]) == 0
    assert capsys.readouterr().out == ""


def test_solve_prints_text_that_looks_like_markup_as_it_is(capsys):
    solved = types.SimpleNamespace(
        question="What is [bold]2[/] + 3?",
        answer="5",
        steps=[("2 + 3 = [5]", 0.9), ("Answer: 5", 0.75)],
        votes=[("5", 1.65, 2), ("[/]", 0.1, 1), (None, 0.0, 3)],
        generations=16,
        seconds=0.5,
        chains=(),
    )
    show.print_solved(solved)  # type: ignore[arg-type]
    out = capsys.readouterr().out
    for part in ("[bold]2[/]", "2 + 3 = [5]", "0.900", "1.650", "answer: 5", "16 generations", "none that could"):
        assert part in out


def test_solve_by_revising_shows_the_chain_and_what_changed(capsys):
    first = types.SimpleNamespace(answer="6", score=0.25, steps=[("2 + 3 = [6]", True), ("Answer: 6", True)], kept=True)
    second = types.SimpleNamespace(answer=None, score=0.125, steps=[("2 + 3 = [6]", False)], kept=False)
    third = types.SimpleNamespace(answer="5", score=0.75, steps=[("2 + 3 = 5", True), ("Answer: 5", True)], kept=True)
    revised = types.SimpleNamespace(
        question="What is [bold]2[/] + 3?",
        answer="5",
        chains=[[first, second, third]],
        chosen=(0, 2),
        generations=3,
        seconds=0.5,
    )
    show.print_solved(revised)  # type: ignore[arg-type]
    out = capsys.readouterr().out
    for part in ("[bold]2[/]", "+ 2 + 3 = [6]", "2 not kept", "(none)", "0.125", "3 *", "answer: 5", "3 generations"):
        assert part in out, part
    assert "+ 2 + 3 = [6]" not in out.split("not kept")[1], "a step that was taken over is marked as new"


@pytest.mark.parametrize("strategy", ["revise:s=2,p=2", "refine:steps=2"])
def test_solve_by_revising_needs_a_revision_model(capsys, tmp_path, strategy):
    status, line = fails(capsys, "solve", "1+1?", "--workdir", str(tmp_path), "--strategy", strategy)
    assert status == 2
    assert "--revision.enabled True" in line


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ("revise:s=0", "s in strategy 'revise:s=0' must be"),
        ("revise:p=2", "needs s"),
        ("revise:s=2,q=2", "unknown setting 'q'"),
        ("refine:steps=x", "steps in strategy"),
        ("revize:s=2", "unknown strategy 'revize'"),
    ],
)
def test_strategies_that_revise_are_read_with_care(capsys, tmp_path, strategy, words):
    folders.complete(tmp_path / "prm", config=config_lib.to_dict(ExperimentConfig()))
    status, line = fails(capsys, "solve", "1+1?", "--workdir", str(tmp_path), "--strategy", strategy)
    assert status == 2
    assert words in line


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the GNU C library's setting")
def test_the_program_starts_again_with_large_pages_and_the_same_arguments(tmp_path):
    code = (
        "import os, sys; from ttcjax.cli import program; program._take_large_pages(); "
        "print(os.environ['GLIBC_TUNABLES'], sys.argv[1:])"
    )
    env = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    command = [sys.executable, "-c", code, "a b", "--c"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.stdout == "glibc.malloc.hugetlb=1 ['a b', '--c']\n", done.stderr
    chosen = env | {"GLIBC_TUNABLES": "glibc.malloc.check=0"}
    done = subprocess.run(command, capture_output=True, text=True, env=chosen, cwd=tmp_path)
    assert done.stdout.startswith("glibc.malloc.check=0 "), "the user's own setting was lost"


def test_override_without_arguments_returns_the_config_itself():
    config = ExperimentConfig()
    assert override(config, []) is config


def test_help_is_quick(tmp_path):
    begin = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run([sys.executable, "-m", "ttcjax.cli", "--help"], check=True, capture_output=True, cwd=tmp_path)
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - begin
    assert seconds < 1.5, "something heavy is imported before it is needed"


def test_a_closed_pipe_is_no_error(config_file, tmp_path):
    script = f"{sys.executable} -m ttcjax.cli config {config_file} | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr == ""


def test_sigterm_ends_a_run_in_order(config_file, tmp_path):
    """What is open is closed on the way out, and the exit status is the shell's for SIGTERM."""
    script = textwrap.dedent(f"""
        import sys, time
        from ttcjax import cli
        from ttcjax.pipeline import run as pipeline
        def run(config, **_):
            try:
                print("ready", flush=True)
                for _ in range(600):  # Short: a signal that comes just before a sleep begins does not end it.
                    time.sleep(0.1)
            finally:
                print("closed", flush=True)
        pipeline.run = run
        sys.exit(cli.main(["run", {config_file!r}]))
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert out == "closed\n"
    assert err == "ttcjax: stopped by SIGTERM; run the same command again to go on\n"
    assert process.returncode == 143
