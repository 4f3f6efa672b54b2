"""How many devices each training run of an experiment uses, and how many rows of a step each of them gets."""

from __future__ import annotations

from dataclasses import dataclass

from ttcjax.config import ExperimentConfig
from ttcjax.config.train import TrainConfig
from ttcjax.parallel import Share, share


@dataclass(frozen=True)
class StageShare:
    """One training run on some devices."""

    stage: str
    name: str
    """Of the run: a stage may have several."""
    available: int
    """Devices there are."""
    parts: int
    """Micro-batches of a step."""
    share: Share
    """Of the rows of a micro-batch."""

    def __str__(self) -> str:
        at_once = f", {self.share.rows} at a time" if self.parts > 1 else ""
        return (
            f"{self.name}: {self.share.rows * self.parts} rows a step{at_once}, {self.share.each} a device on "
            f"{self.share.devices} of {self.available} devices, {self.share.padding} rows of padding"
        )


def micro_batch_share(train: TrainConfig, devices: int, processes: int = 1) -> Share:
    """Return how the rows of a micro-batch stand on the devices; several processes use all of them."""
    return share(train.batch_size // train.accumulate, devices, all_devices=processes > 1)


def stage_shares(config: ExperimentConfig, devices: int, processes: int = 1) -> list[StageShare]:
    """Return the training runs that an experiment has, in the order of its stages.

    Args:
        config: The experiment.
        devices: How many there are, over all processes.
        processes: How many train together.
    """
    runs: list[tuple[str, str, TrainConfig]] = [
        ("policy", "policy", config.policy),
        ("prm", "PRM", config.prm.train),
    ]
    if config.revision.enabled:
        if config.revision.rest_em.chains:
            runs.append(("revision", "revision, offline", config.revision.train))
        runs.append(("revision", "revision", config.revision.train))
        if config.orm.revisions:
            runs += [("orm", f"ORM {variant}", config.orm.train) for variant in config.orm.variants]
    if config.orm.base:
        runs.append(("base_orm", "base ORM", config.base_orm.train))
    if config.larger.enabled:
        runs.append(("larger", "larger", config.policy))
    return [
        StageShare(stage, name, devices, train.accumulate, micro_batch_share(train, devices, processes))
        for stage, name, train in runs
    ]
