"""A study: its seeds, who runs them, what is kept, and what is refused."""

import dataclasses
import json
import logging
import pathlib
import sys
from collections.abc import Iterator

import pytest
from etils import epath

from ttcjax.cli import main
from ttcjax.config import DataConfig, ExperimentConfig, TrainConfig
from ttcjax.config.base import ConfigError
from ttcjax.eval.report import study_report
from ttcjax.pipeline import stages, study
from ttcjax.pipeline.stages import Stage
from ttcjax.runtime import locks, records
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.records import write_json
from ttcjax.runtime.shards import WHOLE, Part

# Stages that leave what their seeds decide; the second one fails where a file tells it to.
DATA = """
from ttcjax.runtime.stage import Stage
def run(settings, inputs, sink):
    other = sink.folder.parent / "other"
    asked = other.read_text() if other.exists() else f"asked with {settings.seed}"
    (sink.folder / "questions.txt").write_text(asked)
    sink.lists("questions.txt")
    return {}
STAGE = Stage(lambda config: config.data, run)
"""
POLICY = """
import os, signal
from ttcjax.runtime.stage import Stage
def run(settings, inputs, sink):
    workdir = sink.folder.parent
    log = workdir.parent / "log.txt"
    log.write_text((log.read_text() if log.exists() else "") + f"{workdir.name} ")
    if (workdir.parent / f"die-{workdir.name}").exists():
        os.kill(os.getpid(), signal.SIGTERM)
    (sink.folder / "model.txt").write_text(f"trained with {settings.seed}")
    sink.lists("model.txt")
    return {}
STAGE = Stage(lambda config: config.policy, run, needs=("data",))
"""
REPORT = """
from ttcjax.runtime.stage import Stage
def run(settings, inputs, sink):
    (sink.folder / "numbers.txt").write_text((inputs["policy"] / "model.txt").read_text())
    sink.lists("numbers.txt")
    return {}
STAGE = Stage(lambda config: config.sweep, run, needs=("policy",))
"""
STAGES = (
    Stage("data", "toy_data", "the questions"),
    Stage("policy", "toy_policy", "the model"),
    Stage("report", "toy_report", "the report"),
)


def toy_study_report(config: ExperimentConfig, workdirs: dict[int, epath.Path], root: epath.Path) -> dict:
    """What every seed's report says, by number; and how often it was made."""
    found = {"seeds": {str(n): (at / "report" / "numbers.txt").read_text() for n, at in workdirs.items()}}
    (root / "report").mkdir(exist_ok=True)
    (root / "report" / "page.txt").write_text("a page")
    write_json(root / study_report.SUMMARY, found)
    with (root / "reports.txt").open("a") as file:
        file.write("made ")
    return found | {"files": ["page.txt", f"../{study_report.SUMMARY}"]}


def reports_of(config: ExperimentConfig) -> int:
    return len((pathlib.Path(config.workdir) / "reports.txt").read_text().split())


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Iterator[ExperimentConfig]:
    """Install the toy stages, and return a config whose workdir is empty."""
    (tmp_path / "toy_data.py").write_text(DATA)
    (tmp_path / "toy_policy.py").write_text(POLICY)
    (tmp_path / "toy_report.py").write_text(REPORT)
    (tmp_path / "work").mkdir()
    monkeypatch.setattr(study_report, "run", toy_study_report)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(stages, "STAGES", tuple(map(dataclasses.replace, STAGES)))  # Each remembers its module.
    yield ExperimentConfig(workdir=str(tmp_path / "work"), policy=TrainConfig(seed=5))
    for name in ("toy_data", "toy_policy", "toy_report"):
        sys.modules.pop(name, None)


def trained(config: ExperimentConfig) -> dict[str, str]:
    """What each seed's model was trained with, by folder."""
    return {
        path.parts[-3]: path.read_text() for path in sorted(pathlib.Path(config.workdir).glob("*/policy/model.txt"))
    }


def log_of(config: ExperimentConfig) -> list[str]:
    return (pathlib.Path(config.workdir) / "log.txt").read_text().split()


def seeds_of(table: object, path: str = "") -> dict[str, int]:
    """Every setting with `seed` in its name, anywhere in a config, that holds a number to begin a stream with."""
    found: dict[str, int] = {}
    for field in dataclasses.fields(table):  # type: ignore[arg-type]
        value, name = getattr(table, field.name), f"{path}{field.name}"
        if dataclasses.is_dataclass(value):
            found |= seeds_of(value, f"{name}.")
        elif "seed" in field.name and name != "sweep.seeds":  # that one is a number of runs
            found[name] = value
    return found


def test_every_seed_of_the_config_changes_or_is_fixed_on_purpose():
    base = ExperimentConfig()
    before, after = seeds_of(base), seeds_of(study.seeded(base, 3))
    assert len(before) >= 10, "an empty walk would pass"
    assert set(before) >= study.FIXED, "a fixed seed that does not exist is a seed that was renamed"
    assert {name for name in before if after[name] == before[name]} == study.FIXED
    assert {after[name] - before[name] for name in before if name not in study.FIXED} == {3 * study.STRIDE}


def test_nothing_but_seeds_changes_and_seed_0_is_the_config():
    base = ExperimentConfig(policy=TrainConfig(seed=7), data=DataConfig(seed=4))
    assert study.seeded(base, 0) == base
    moved = study.seeded(base, 2)
    assert moved.data.seed == 4
    assert moved.policy.seed == 7 + 2 * study.STRIDE
    assert study._moved(moved, -2 * study.STRIDE, "") == base, "taken back, all settings are as they were"


def test_a_seed_that_is_too_large_is_refused_with_its_setting():
    with pytest.raises(ConfigError, match="seed must lie in"):
        study.seeded(ExperimentConfig(), 2**15)


@pytest.mark.parametrize("seeds", range(1, 8))
@pytest.mark.parametrize("count", range(1, 9))
def test_every_seed_is_made_whole_by_the_parts(seeds, count):
    """Each seed by one part alone, or by parts 1/k to k/k; and no part has two seeds more than another one."""
    loads = []
    made: dict[int, list[Part]] = {number: [] for number in range(seeds)}
    for index in range(1, count + 1):
        shares = {number: study.share_of(number, seeds, Part(index, count)) for number in range(seeds)}
        for number, share in shares.items():
            if share is not None:
                made[number].append(share)
        loads.append(sum(1 / share.count for share in shares.values() if share is not None))
    for shares in made.values():
        assert shares == [Part(i, len(shares)) for i in range(1, len(shares) + 1)]
    assert sum(loads) == pytest.approx(seeds)
    assert min(loads) > 0, "a part has nothing to do"
    assert max(loads) - min(loads) <= 0.5 + 1e-9 or (seeds < count and max(loads) <= 1), "badly shared"


def test_a_study_runs_every_seed_in_its_folder_and_is_kept(toy, caplog):
    with caplog.at_level(logging.INFO, "ttcjax.pipeline.study"):
        study.study(toy, 3)
    assert trained(toy) == {f"seed-{k}": f"trained with {5 + k * study.STRIDE}" for k in range(3)}
    told = [line for line in caplog.messages if line.startswith("study: seed")]
    assert told == [
        f"study: seed {k} ({k + 1} of 3), stage {i + 1} of 3: {s.name}" for k in range(3) for i, s in enumerate(STAGES)
    ]
    caplog.clear()
    study.study(toy, 3)
    assert log_of(toy) == ["seed-0", "seed-1", "seed-2"], "a complete stage was made again"
    assert not [line for line in caplog.messages if line.startswith("study: seed")]
    assert reports_of(toy) == 1, "a report that was complete was made again"
    found = study.study(toy, 4)
    assert reports_of(toy) == 2
    assert list(found["seeds"]) == ["0", "1", "2", "3"]
    assert log_of(toy) == ["seed-0", "seed-1", "seed-2", "seed-3"], "one more seed is one more run"


def test_a_stopped_study_goes_on_with_the_seed_it_was_at(toy, tmp_path, capsys):
    config = tmp_path / "config.py"
    config.write_text(
        "from ttcjax.config import *\n"
        f"def get_config(): return ExperimentConfig(workdir={toy.workdir!r}, policy=TrainConfig(seed=5))\n"
    )
    die = pathlib.Path(toy.workdir) / "die-seed-1"
    die.touch()
    assert main(["study", str(config), "--seeds", "2"]) == 143
    assert "stopped by SIGTERM; run the same command again" in capsys.readouterr().err
    assert main(["list", toy.workdir]) == 0
    states = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert states == [
        ["seed-0/data", "complete"],
        ["seed-0/policy", "complete"],
        ["seed-0/report", "complete"],
        ["seed-1/data", "complete"],
        ["seed-1/policy", "missing"],
        ["seed-1/report", "missing"],
        ["report", "missing"],
    ]
    die.unlink()
    study.study(toy, 2)
    assert log_of(toy) == ["seed-0", "seed-1", "seed-1"]
    assert trained(toy) == {"seed-0": "trained with 5", "seed-1": f"trained with {5 + study.STRIDE}"}


@pytest.mark.parametrize("count", [2, 3])
def test_parts_make_what_one_process_makes(toy, count, tmp_path):
    for index in range(1, count + 1):
        part = Part(index, count)
        mine = [k for k in range(3 * count) if study.share_of(k, 3 * count, part) == WHOLE]
        found = study.study(toy, 3 * count, part)
        assert log_of(toy)[-len(mine) :] == [f"seed-{k}" for k in mine]
        assert bool(found) == (index == count), "the part that completes the last seed reports"
    shared = trained(toy)
    alone = dataclasses.replace(toy, workdir=str(tmp_path / "alone"))
    study.study(alone, 3 * count)
    assert trained(alone) == shared


def test_what_is_missing_is_told_seed_by_seed(toy):
    study.study(toy, 3, Part(2, 3))
    assert study.waits_for(toy, 3) == ["seed 0 (data, policy, report)", "seed 2 (data, policy, report)"]


def test_a_workdir_in_use_is_refused(toy):
    with locks.alone(epath.Path(toy.workdir)), pytest.raises(UserError, match="in use by"):
        study.study(toy, 2)
    with locks.alone(epath.Path(toy.workdir)), pytest.raises(UserError, match="in use by"):
        study.study(toy, 2, Part(1, 2))


def test_seeds_that_were_asked_other_questions_are_refused(toy):
    study.study(toy, 1)
    root = pathlib.Path(toy.workdir)
    (root / "seed-1").mkdir()
    (root / "seed-1" / "other").write_text("something else")
    with pytest.raises(UserError, match=r"seeds 0 and 1 have other questions \(questions\.txt differ\)"):
        study.study(toy, 2)
    assert log_of(toy) == ["seed-0"], "nothing was trained on them"


def test_a_question_is_for_one_seed(toy, capsys):
    study.study(toy, 1)
    assert main(["solve", "1+1?", "--workdir", toy.workdir]) == 2
    assert (
        capsys.readouterr()
        .err.strip()
        .endswith(f"is a study: ask one of its seeds, as with --workdir {toy.workdir}/seed-0")
    )


def test_a_dry_run_writes_nothing_and_says_what_is_left(toy, tmp_path, capsys):
    config = tmp_path / "config.py"
    config.write_text(
        "from ttcjax.config import *\n"
        f"def get_config(): return ExperimentConfig(workdir={toy.workdir!r}, policy=TrainConfig(seed=5))\n"
    )
    study.study(toy, 1)
    before = {path: path.stat().st_mtime_ns for path in pathlib.Path(toy.workdir).rglob("*")}
    assert main(["study", str(config), "--dry-run", "--json", "--seeds", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    actions = {one["seed"]: [stage["action"] for stage in one["stages"]] for one in found["seeds"]}
    assert actions == {0: ["keep"] * 3, 1: ["run"] * 3}
    assert found["seeds"][1]["workdir"] == f"{toy.workdir}/seed-1"
    assert main(["study", str(config), "--seeds", "2", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "seed 0: 3 of 3 stages complete" in out
    assert "seed 1: 0 of 3 stages complete" in out
    assert {path: path.stat().st_mtime_ns for path in pathlib.Path(toy.workdir).rglob("*")} == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--seeds is missing"),
        (["--seeds", "0"], "--seeds must be 1 or more, not 0"),
        (["--seeds", "x"], "invalid int value"),
        (["--seeds", "2", "--part", "3/2"], "--part must be I/K"),
        (["--seeds", "2", "--json"], "add --dry-run"),
    ],
)
def test_bad_flags_are_told_in_one_line(toy, tmp_path, capsys, flags, message):
    config = tmp_path / "config.py"
    config.write_text("from ttcjax.config import *\ndef get_config(): return ExperimentConfig()\n")
    assert main(["study", str(config), "--workdir", toy.workdir, *flags]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_seed_is_a_run_like_any_other(toy):
    study.study(toy, 2)
    record = records.read_complete(pathlib.Path(toy.workdir) / "seed-1" / "policy")
    assert record is not None
    assert record["config"]["policy"]["seed"] == 5 + study.STRIDE


@pytest.mark.parametrize("lost", ["report/page.txt", "study.json", "stages/report.json"])
def test_a_report_that_lost_a_file_is_made_again_from_what_is_there(toy, lost, capsys):
    found = study.study(toy, 2)
    (pathlib.Path(toy.workdir) / lost).unlink()
    assert main(["list", toy.workdir]) == 0
    assert "complete" not in capsys.readouterr().out.splitlines()[-1]
    assert study.study(toy, 2) == found
    assert reports_of(toy) == 2
    assert log_of(toy) == ["seed-0", "seed-1"]
    assert main(["list", toy.workdir]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[:2] == ["report", "complete"]
