"""Stages: what is skipped, resumed, moved aside, and what each depends on."""

import contextlib
import dataclasses
import json
import logging
import pathlib
import signal
import subprocess
import sys
import textwrap
import types
from collections.abc import Iterator

import pytest
from etils import epath

from ttcjax import config as config_lib
from ttcjax.config import (
    ChainsConfig,
    DataConfig,
    ExperimentConfig,
    LargerConfig,
    ModelConfig,
    OptimizerConfig,
    ORMConfig,
    PRMConfig,
    ReSTConfig,
    RevisionConfig,
    SamplerConfig,
    SweepConfig,
    TrainConfig,
    TrajectoryConfig,
)
from ttcjax.pipeline import dry_run, run, stages
from ttcjax.pipeline.stages import Stage
from ttcjax.runtime import files, locks, records
from ttcjax.runtime.errors import MachineError, UserError

# Two stages that count their runs, the second reading the first; it fails or dies where a file tells it to.
FIRST = """
from ttcjax.runtime.stage import Stage
def run(settings, inputs, sink):
    (sink.folder / "value.txt").write_text(str(settings.steps))
    log = sink.folder.parent / "log.txt"
    log.write_text((log.read_text() if log.exists() else "") + "first ")
    return {"steps": settings.steps}
STAGE = Stage(lambda config: config.policy, run)
"""
SECOND = """
import os, signal
from ttcjax.runtime.stage import Stage
def run(settings, inputs, sink):
    workdir, out = sink.folder.parent, sink.folder
    log = workdir / "log.txt"
    log.write_text(log.read_text() + ("second-resumed " if (out / "half.txt").exists() else "second "))
    (out / "half.txt").write_text("half")
    if (workdir / "fail").exists():
        raise OSError(28, "No space left on device", str(out))
    if (workdir / "die").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return {"value": int((inputs["first"] / "value.txt").read_text()) + settings.top_k}
STAGE = Stage(lambda config: config.sampler, run, needs=("first",))
"""
SECOND_THAT_MUST_WRITE = SECOND.replace("run, needs", 'run, writes=("half.txt",), needs')
STAGES = (Stage("first", "toy_first", "the first"), Stage("second", "toy_second", "the second"))


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Iterator[pathlib.Path]:
    """Install the toy stages and return their folder."""
    (tmp_path / "toy_first.py").write_text(FIRST)
    (tmp_path / "toy_second.py").write_text(SECOND)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(stages, "STAGES", tuple(map(dataclasses.replace, STAGES)))  # Each remembers its module.
    yield tmp_path
    for name in ("toy_first", "toy_second"):
        sys.modules.pop(name, None)


def config_for(folder: pathlib.Path, steps: int = 5, top_k: int = 0, **changes) -> ExperimentConfig:
    return ExperimentConfig(
        workdir=str(folder / "work"),
        policy=TrainConfig(steps=steps, **changes),
        sampler=SamplerConfig(top_k=top_k),
    )


def log_of(folder: pathlib.Path) -> list[str]:
    return (folder / "work" / "log.txt").read_text().split()


def test_a_run_writes_results_records_and_settings(toy):
    config = config_for(toy)
    found = run.run(config)
    assert found["second"]["result"] == {"value": 5}
    work = toy / "work"
    assert sorted(p.name for p in work.iterdir()) == [".lock", "first", "log.txt", "second", "stages"]
    record = json.loads((work / "stages" / "second.json").read_text())
    assert record == found["second"]
    assert record["config"]["policy"]["steps"] == 5
    assert record["complete"]
    assert record["attempts"] == 1
    assert record["seconds"] > 0
    assert record["compilations"] == 0
    assert record["compile_seconds"] == 0
    assert record["peak_rss_bytes"] > 1 << 20
    assert "jax" in record["versions"]


def test_complete_stages_are_skipped(toy, caplog):
    config = config_for(toy)
    first = run.run(config)
    caplog.clear()
    with caplog.at_level(logging.INFO, "ttcjax"):
        assert run.run(config) == first
    assert caplog.messages == ["first: complete", "second: complete"]
    assert log_of(toy) == ["first", "second"]


def test_a_late_setting_does_not_rerun_an_early_stage(toy):
    run.run(config_for(toy))
    found = run.run(config_for(toy, top_k=3))
    assert log_of(toy) == ["first", "second", "second"]
    assert found["second"]["result"] == {"value": 8}


def test_an_early_setting_reruns_what_reads_it(toy):
    run.run(config_for(toy))
    assert run.run(config_for(toy, steps=7))["second"]["result"] == {"value": 7}
    assert log_of(toy) == ["first", "second", "first", "second"]


def test_settings_of_speed_rerun_nothing(toy):
    run.run(config_for(toy))
    run.run(config_for(toy, log_every=3, keep_checkpoints=9))
    assert log_of(toy) == ["first", "second"]


def test_outdated_results_are_kept_and_come_back(toy, caplog):
    before = run.run(config_for(toy))
    old = toy / "work" / f"second.old-{before['second']['fingerprint']}"
    with caplog.at_level(logging.WARNING, "ttcjax"):
        run.run(config_for(toy, top_k=3))
    assert "second was made with other settings or of other files: it is kept as" in caplog.text
    assert records.read(epath.Path(old)) == before["second"]

    assert run.run(config_for(toy)) == before, "the old results serve again"
    assert log_of(toy) == ["first", "second", "second"]
    assert not old.exists()


def test_a_failed_stage_is_resumed(toy, caplog):
    config = config_for(toy)
    (toy / "work").mkdir()
    (toy / "work" / "fail").touch()
    with pytest.raises(MachineError, match="no space left"):
        run.run(config)
    assert not (toy / "work" / "second").exists()
    (toy / "work" / "fail").unlink()
    with caplog.at_level(logging.INFO, "ttcjax"):
        record = run.run(config)["second"]
    assert log_of(toy) == ["first", "second", "second-resumed"]
    assert "second: resuming an interrupted run" in caplog.messages
    assert record["attempts"] == 2


def test_an_unfinished_stage_of_other_settings_is_not_resumed(toy):
    (toy / "work").mkdir()
    (toy / "work" / "fail").touch()
    with pytest.raises(MachineError, match="no space left"):
        run.run(config_for(toy))
    (toy / "work" / "fail").unlink()
    run.run(config_for(toy, top_k=3))
    assert log_of(toy) == ["first", "second", "second"]
    assert len(list((toy / "work").glob("second.partial.old-*"))) == 1


def test_a_complete_stage_that_lost_what_it_writes_is_made_again(toy, caplog):
    """So the advice to delete a damaged file and run its stage again works."""
    (toy / "toy_second.py").write_text(SECOND_THAT_MUST_WRITE)
    config = config_for(toy)
    run.run(config)
    run.run(config)
    assert log_of(toy) == ["first", "second"]
    (toy / "work" / "second" / "half.txt").unlink()
    with caplog.at_level(logging.WARNING, "ttcjax"):
        run.run(config)
    assert "half.txt is gone, and second is made again" in caplog.text
    assert log_of(toy) == ["first", "second", "second"]
    assert (toy / "work" / "second" / "half.txt").exists()


def test_what_a_stage_must_write_is_what_it_writes():
    wanted = {stage.name: stage.writes for stage in stages.STAGES if stage.writes}
    assert wanted == {
        "data": ("tokenizer.model",),
        "policy": ("best",),
        "prm": ("best",),
        "revision": ("best",),
        "base_orm": ("best",),
        "larger": ("best",),
        "report": ("../summary.json",),
    }


@pytest.mark.parametrize("kept", [True, False], ids=["cut", "gone"])
def test_a_folder_without_a_readable_record_is_moved_aside(toy, kept):
    config = config_for(toy)
    run.run(config)
    record = toy / "work" / "stages" / "second.json"
    if kept:
        record.write_text(record.read_text()[:20])
    else:
        record.unlink()
    run.run(config)
    assert log_of(toy) == ["first", "second", "second"]
    assert (toy / "work" / "second.old-unknown" / "half.txt").exists()


def test_a_run_killed_before_the_rename_is_published(toy):
    config = config_for(toy)
    before = run.run(config)
    (toy / "work" / "second").rename(toy / "work" / "second.partial")
    assert run.run(config) == before
    assert log_of(toy) == ["first", "second"]


def test_kill_9_leaves_a_workdir_that_resumes(toy):
    (toy / "work").mkdir()
    (toy / "work" / "die").touch()
    code = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(toy)!r})
        from ttcjax.pipeline import run as pipeline
        from ttcjax.pipeline import stages
        from ttcjax.config import ExperimentConfig, from_dict
        from ttcjax.pipeline.stages import Stage
        stages.STAGES = {STAGES!r}
        config = from_dict(ExperimentConfig, {config_lib.to_dict(config_for(toy))!r})
        pipeline.run(config)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (toy / "work" / "die").unlink()
    record = run.run(config_for(toy))["second"]
    assert log_of(toy) == ["first", "second", "second-resumed"]
    assert record["attempts"] == 2
    assert record["result"] == {"value": 5}


def test_seconds_of_a_killed_attempt_count(tmp_path):
    folder = epath.Path(tmp_path)
    (folder / "half.txt").write_text("half")
    started = (folder / "half.txt").stat().mtime - 40
    assert run._seconds_of_last_attempt(folder, {"started": started}) == 40


def test_one_stage_needs_those_it_reads(toy):
    config = config_for(toy)
    with pytest.raises(UserError, match=r"'first', which is missing in .*: run `ttcjax first x.py` first"):
        run.run(config, only="second", command="x.py")
    run.run(config, only="first")
    assert list(run.run(config, only="second")) == ["second"]
    with pytest.raises(UserError, match="'first', which was made with other settings"):
        run.run(config_for(toy, steps=9), only="second")
    with pytest.raises(UserError, match="unknown stage 'third'"):
        run.run(config, only="third")


def test_states_tell_complete_from_unfinished(toy):
    (toy / "work").mkdir()
    (toy / "work" / "fail").touch()
    assert [state for _, state, _ in run.states(toy / "work")] == ["missing", "missing"]
    with contextlib.suppress(MachineError):
        run.run(config_for(toy))
    assert [state for _, state, _ in run.states(toy / "work")] == ["complete", "unfinished"]


HOLD = """
import sys, time
from etils import epath
from ttcjax.runtime import locks
with locks.alone(epath.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_on_a_workdir_is_refused_until_the_first_is_dead(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=f"in use by process {holder.pid} on .*--workdir"),
            locks.alone(epath.Path(tmp_path)),
        ):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with locks.alone(epath.Path(tmp_path)):
        assert (tmp_path / ".lock").exists(), "the lock of a killed process is free at once"


def test_an_object_store_gets_a_file_in_one_piece(monkeypatch):
    """It cannot rename: a copy and a deletion would let two writers of one object trip each other."""
    written = {}

    class Store:
        parent = types.SimpleNamespace(mkdir=lambda **_: None)

        def __init__(self, path):
            self.path = path

        def __fspath__(self):
            return self.path

        def write_bytes(self, content):
            written[self.path] = content

    monkeypatch.setattr(files, "epath", types.SimpleNamespace(Path=Store))
    files.write_bytes("gs://bucket/run/stages/bank.json", b"{}")
    assert written == {"gs://bucket/run/stages/bank.json": b"{}"}


def test_a_workdir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot make workdir"), locks.alone(epath.Path(tmp_path / "file")):
        pass


BROKEN = """
from ttcjax.runtime.stage import Stage
def run(settings, inputs, sink):
    (sink.folder / "shard-00000.parquet").write_bytes(b"PAR1 and no more")
    sink.lists("shard-00000.parquet")
    return {}
STAGE = Stage(lambda config: config.sampler, run, needs=("first",))
"""
LYING = SECOND.replace("    return", '    sink.lists("gone.txt")\n    return')
CURIOUS = SECOND.replace(', needs=("first",)', "")


def test_a_stage_is_complete_only_once_its_files_were_opened_again(toy):
    (toy / "toy_second.py").write_text(BROKEN)
    with pytest.raises(UserError, match=r"shard-00000\.parquet is damaged \(it was just written"):
        run.run(config_for(toy))
    assert [state for _, state, _ in run.states(toy / "work")] == ["complete", "unfinished"]


def test_a_stage_that_lists_what_it_did_not_write_is_not_complete(toy):
    (toy / "toy_second.py").write_text(LYING)
    with pytest.raises(FileNotFoundError):
        run.run(config_for(toy))
    assert not (toy / "work" / "second").exists()


def test_a_stage_that_reads_a_folder_which_it_has_not_declared_fails(toy):
    """Otherwise it would not be made again when what it read is."""
    (toy / "toy_second.py").write_text(CURIOUS)
    with pytest.raises(KeyError, match="the stage reads 'first', and its `needs` are none"):
        run.run(config_for(toy))
    assert (toy / "work" / "first" / "value.txt").exists()
    assert not (toy / "work" / "second").exists()


FAILING = """
from ttcjax.runtime.errors import MachineError, UserError
from ttcjax.runtime.stage import Stage
def run(settings, inputs, sink):
    (sink.folder / "empty").mkdir()
    raise UserError("bad input")
STAGE = Stage(lambda config: config.policy, run)
"""


def test_a_command_that_fails_before_anything_is_begun_leaves_nothing(toy):
    (toy / "toy_first.py").write_text(FAILING)
    with pytest.raises(UserError, match="bad input"):
        run.run(config_for(toy))
    assert not (toy / "work").exists()
    for call in (
        lambda: run.run(config_for(toy), only="second"),
        lambda: run.run(dataclasses.replace(config_for(toy), workdir=str(toy / "a" / "b")), only="second"),
    ):
        with pytest.raises(UserError, match="run `ttcjax first CONFIG` first"):
            call()
    assert not (toy / "work").exists()
    assert not (toy / "a").exists()


@pytest.mark.parametrize("stage", ["policy", "bank", "report"])
def test_a_dry_run_of_one_stage_refuses_what_the_stage_refuses(tmp_path, stage):
    config = ExperimentConfig(workdir=str(tmp_path / "empty"))
    told = []
    for ask in (dry_run.plan, run.run):
        with pytest.raises(UserError) as error:
            ask(config, only=stage, command="my.py --workdir empty")
        told.append(str(error.value))
    assert told[0] == told[1]
    assert "`ttcjax data my.py --workdir empty` first" in told[0]


def test_a_dry_run_says_what_a_run_would_do_and_writes_nothing(toy):
    (toy / "toy_second.py").write_text(SECOND_THAT_MUST_WRITE)
    config = config_for(toy)
    actions = lambda config: [(one.stage, one.action) for one in dry_run.plan(config)]  # noqa: E731
    assert actions(config) == [("first", "run"), ("second", "run")]
    assert not (toy / "work").exists()
    run.run(config)
    assert actions(config) == [("first", "keep"), ("second", "keep")]
    assert actions(config_for(toy, top_k=3)) == [("first", "keep"), ("second", "run")]
    run.run(config_for(toy, top_k=3))
    assert actions(config) == [("first", "keep"), ("second", "restore")]
    (toy / "work" / "second" / "half.txt").unlink()
    assert actions(config_for(toy, top_k=3)) == [("first", "keep"), ("second", "repair")]
    before = sorted((path, path.stat().st_mtime_ns) for path in (toy / "work").rglob("*"))
    dry_run.plan(config)
    assert sorted((path, path.stat().st_mtime_ns) for path in (toy / "work").rglob("*")) == before


# ---- the real stages


BASE = ExperimentConfig(revision=RevisionConfig(enabled=True), orm=ORMConfig(base=True), larger=LargerConfig(True))


def changed(base: ExperimentConfig = BASE, **changes) -> set[str]:
    other = dataclasses.replace(base, **changes)
    wanted = [s for s in stages.STAGES if s.wanted(other)]
    return {s.name for s in wanted if stages.fingerprint(s, base) != stages.fingerprint(s, other)}


ALL = [
    *("data", "policy", "labels", "prm", "bank", "search", "trajectories", "revision"),
    *("attempts", "orm", "base_orm", "larger", "greedy", "rescore", "chains", "report"),
]
"""Of `BASE`, which chooses no temperature: what the stage `tune` reruns stands in `test_temperatures`."""
STRATEGIES = BASE.sweep.strategies
ADAPTIVE, TUNED = "adaptive:wave=2,confidence=0.6,select=weighted", "beam:width=4,temperature=validated"
READ = ("bank", "rescore")
"""What reads the temperatures that the stage `tune` chooses, and what reads that."""
SMALLER = [name for name in ALL if name != "larger"]
JUDGED = {"bank", "rescore", "search", "chains", "report"}
REVISED = {"revision", "attempts", "orm", "chains", "report"}


def test_stages_are_in_the_order_of_what_they_read():
    names = [stage.name for stage in run.wanted_stages(BASE)]
    assert names == ALL
    for stage in map(stages.get_stage, names):
        assert set(stage.needs(BASE)) & set(names) <= set(names[: names.index(stage.name)]), stage.name


def test_greedy_answers_are_due_as_soon_as_the_models_are_there():
    """What a stranger sees first of accuracy; a larger model comes late."""
    small = dataclasses.replace(BASE, larger=LargerConfig(False))
    names = [stage.name for stage in run.wanted_stages(small)]
    assert names[:4] == ["data", "policy", "greedy", "labels"]
    assert sorted([*names, "larger"]) == sorted(ALL)


@pytest.mark.parametrize(
    ("changes", "reruns"),
    [
        ({"data": dataclasses.replace(BASE.data, seed=1)}, ALL),
        ({"tokenizer": dataclasses.replace(BASE.tokenizer, vocab_size=600)}, ALL),
        ({"model": dataclasses.replace(BASE.model, d_ff=128)}, SMALLER[1:]),
        ({"policy": TrainConfig(steps=9)}, ALL[1:]),
        ({"policy": TrainConfig(log_every=7)}, []),
        ({"policy": TrainConfig(keep_checkpoints=9)}, []),
        ({"policy": TrainConfig(optimizer=OptimizerConfig(b1=0.8))}, SMALLER[1:]),
        ({"larger": LargerConfig(True, ModelConfig(d_ff=128))}, {"larger", "greedy", "report"}),
        ({"larger": LargerConfig(True, optimizer=OptimizerConfig(b1=0.8))}, {"larger", "greedy", "report"}),
        ({"sampler": SamplerConfig(top_k=5)}, SMALLER[2:]),
        ({"sampler": SamplerConfig(temperature=0.5)}, set(SMALLER[2:]) - {"greedy", "trajectories", "revision"}),
        ({"sampler": SamplerConfig(max_step_tokens=9)}, {"search", "report"}),
        ({"labels": dataclasses.replace(BASE.labels, rollouts=9)}, {"labels", "prm", "base_orm", "orm", *JUDGED}),
        # The outcome-reward model of base samples is trained as the PRM is, those of revisions are compared with it.
        ({"prm": PRMConfig(valid_fraction=0.2)}, {"prm", "base_orm", "orm", *JUDGED}),
        ({"prm": PRMConfig(train=TrainConfig(steps=9))}, {"prm", "base_orm", "orm", *JUDGED}),
        ({"revision": RevisionConfig(True, TrajectoryConfig(samples=9))}, {"trajectories", *REVISED}),
        ({"revision": RevisionConfig(True, train=TrainConfig(steps=9))}, REVISED),
        ({"revision": RevisionConfig(True, restate=True)}, REVISED),
        ({"revision": RevisionConfig(True, rest_em=ReSTConfig(chains=2))}, REVISED),
        ({"orm": ORMConfig(base=True, chains=9)}, {"attempts", "orm", "chains", "report"}),
        ({"orm": ORMConfig(base=True, likelihood=True)}, {"orm", "chains", "report"}),
        ({"chains": ChainsConfig(seed=9)}, {"chains", "report"}),
        ({"sweep": SweepConfig(seed=9)}, ["bank", "rescore", "search", "report"]),
        ({"sweep": SweepConfig(samples=128)}, ["bank", "rescore", "report"]),
        ({"sweep": SweepConfig(samples_content="0123")}, ["bank", "rescore", "report"]),
        ({"sweep": SweepConfig(verifiers=("judge=x",))}, ["rescore", "rescore_chains", "report"]),
        ({"sweep": SweepConfig(budgets=(1, 2))}, ["search", "report"]),
        ({"sweep": SweepConfig(seeds=2)}, ["search", "report"]),
        ({"sweep": SweepConfig(strategies=STRATEGIES[:-1])}, ["search", "report"]),
        ({"sweep": SweepConfig(strategies=("best_of_n", *STRATEGIES))}, ["report"]),
        ({"sweep": SweepConfig(strategies=("majority:temperature=0.6", *STRATEGIES))}, ["bank", "rescore", "report"]),
        ({"prm": PRMConfig(aggregate="min")}, ["orm", "chains", "report"]),
        ({"orm": ORMConfig(base=True, base_settings="orm")}, {"base_orm", "rescore", "report"}),
        ({"chains": ChainsConfig(verifier="prm")}, {"chains", "report"}),
        ({"sweep": SweepConfig(bootstrap=99)}, ["report"]),
        ({"sampler": SamplerConfig(rows=8)}, []),
        ({"name": "other"}, ["report"]),
    ],
)
def test_a_setting_reruns_the_stages_it_decides_and_no_other(changes, reruns):
    assert changed(**changes) == set(reruns)


@pytest.mark.parametrize(
    ("strategies", "temperatures", "changes", "reruns"),
    [
        (STRATEGIES, (), {"prm": PRMConfig(aggregate="min")}, {"orm", "chains"}),
        ((*STRATEGIES, ADAPTIVE), (), {"prm": PRMConfig(aggregate="min")}, {"orm", "chains", "search"}),
        (STRATEGIES, (), {"sampler": SamplerConfig(max_step_tokens=9)}, {"search"}),
        ((*STRATEGIES, TUNED), (0.5, 1.0), {"sampler": SamplerConfig(max_step_tokens=9)}, {"tune", "search", *READ}),
    ],
)
def test_a_setting_that_a_strategy_reads_reruns_its_stage(strategies, temperatures, changes, reruns):
    base = dataclasses.replace(BASE, sweep=SweepConfig(strategies=strategies, temperatures=temperatures))
    assert changed(base, **changes) == {*reruns, "report"}


def test_stages_that_are_off_are_neither_run_nor_read():
    off, other = ExperimentConfig(), ExperimentConfig(revision=RevisionConfig(max_seq_len=512))
    assert {s.name for s in stages.STAGES if not s.wanted(off)} == {
        *("trajectories", "base_orm", "rescore", "rescore_chains", "larger", "tune"),
        *(REVISED - {"report"}),
    }
    for stage in stages.STAGES:
        if stage.wanted(off) and stage.name != "report":  # The report writes down the hash of every setting.
            assert stages.fingerprint(stage, off) == stages.fingerprint(stage, other)


def test_a_dry_run_counts_what_temperatures_take(tmp_path):
    """By hand: 3 candidates, 30 validation questions; majority and beams of width 4 at 1, 4 and 16 generations."""
    names = (
        "majority",
        "majority:temperature=validated",
        "beam:width=4,temperature=validated",
        "majority:temperature=2",
    )
    sweep = SweepConfig(
        strategies=names, temperatures=(0.5, 1.0, 1.5), tune_questions=30, samples=40, budgets=(1, 4, 16), seeds=2
    )
    config = ExperimentConfig(workdir=str(tmp_path), sweep=sweep)
    found = {one.stage: one.work for one in dry_run.plan(config)}
    # 16 samples at each candidate; at each a search of 4 and one of 16 beams, twice.
    assert found["tune"] == "30 x 48 = 1,440 solutions, 6 searches of 30 questions, 120 generations each in all"
    # 20 of 40 samples judge, and so many may be needed at 0.5 and 1.5, and are at 2.
    assert found["bank"] == "250 x 40 = 10,000 solutions, at most 250 x 60 = 15,000 at 3 other temperatures"
    assert found["search"] == "2 searches of 250 questions, 40 generations each in all"
    assert found["greedy"] == "250 x 1 = 250 answers"
    plain = dataclasses.replace(config, sweep=SweepConfig(strategies=("majority", "majority:temperature=2")))
    found = {one.stage: one.work for one in dry_run.plan(plain)}
    assert "tune" not in found
    assert found["bank"] == "250 x 64 = 16,000 solutions, 250 x 64 = 16,000 at 1 other temperature"


def test_a_stage_that_is_off_is_said_so(tmp_path):
    with pytest.raises(UserError, match=r"turn it on with --revision\.enabled True"):
        run.run(ExperimentConfig(workdir=str(tmp_path)), only="revision")
    with pytest.raises(UserError, match=r"turn it on with --sweep\.temperatures \(its help says how\)"):
        run.run(ExperimentConfig(workdir=str(tmp_path)), only="tune")


def test_the_workdir_changes_no_fingerprint():
    assert changed(workdir="elsewhere") == set()
    assert changed(changed_inputs="keep") == set()
    assert changed(data=DataConfig(dir="elsewhere")) == set(), "files are known by their content"
    assert changed(data=DataConfig(content="0123")) == set(ALL)
