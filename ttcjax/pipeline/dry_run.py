"""What a run would do, stage by stage, told without running or writing anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from etils import epath

from ttcjax.config import ExperimentConfig
from ttcjax.pipeline import run
from ttcjax.pipeline import stages as stages_lib
from ttcjax.pipeline.stages import Stage
from ttcjax.runtime import records
from ttcjax.runtime.files import is_there


@dataclass(frozen=True)
class Planned:
    """Work that a run would do of one stage."""

    stage: str
    action: str
    """`keep` what is complete, `run`, `resume` what was begun, `repair` what is damaged, or `restore` what was kept of
    these settings."""
    why: str
    work: str
    """How much it is in all; empty for a stage that is kept."""


def plan(config: ExperimentConfig, *, only: str | None = None, command: str = "CONFIG") -> list[Planned]:
    """Return what `pipeline.run` would do, given the same.

    Raises:
        UserError: What `pipeline.run` refuses before anything runs.
    """
    chosen = run.wanted_stages(config, only)
    config, workdir = run.prepared(config)
    if only is not None:
        run.require_needs(chosen[0], config, workdir, command)
    return [_planned(stage, config, workdir) for stage in chosen]


def lines(found: Sequence[Planned], shares: Mapping[str, str]) -> list[str]:
    """Return a plan as lines of text.

    Args:
        found: The plan.
        shares: How training stands on the devices, as `pipeline.device_shares` tells.
    """
    told = [f"{one.stage:12} {one.action:8} {'; '.join(filter(None, (one.why, one.work)))}".rstrip() for one in found]
    return [*told, *shares.values()]


def _planned(stage: Stage, config: ExperimentConfig, workdir: epath.Path) -> Planned:
    wanted = stages_lib.fingerprint(stage, config)
    final, partial = workdir / stage.name, workdir / f"{stage.name}.partial"
    record = records.read(final)
    mine = record is not None and record["fingerprint"] == wanted
    kept = records.read_complete(workdir / f"{stage.name}.old-{wanted}")
    if mine and record is not None and record["complete"] and is_there(final):
        wrong = run.wrong_files(stage, final, record)
        if not wrong:
            return Planned(stage.name, "keep", "complete", "")
        name, why = next(iter(wrong.items()))
        return Planned(stage.name, "repair", f"{name} {why}", stage.work(config))
    if mine and is_there(partial):
        return Planned(stage.name, "resume", "begun and not finished", stage.work(config))
    if kept is not None:
        return Planned(stage.name, "restore", f"complete in {stage.name}.old-{wanted}", "")
    why = ""
    if is_there(final) or is_there(partial):
        why = "made with other settings or of other files, and kept"
        if record is None and is_there(final):
            why = f"what is there {records.why_none(final)}, and is kept"
    return Planned(stage.name, "run", why, stage.work(config))
