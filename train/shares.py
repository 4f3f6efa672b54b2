"""Devices of a training run, and rows of a step on each of them."""

from __future__ import annotations

from dataclasses import dataclass

from ttcjax.config.train import TrainConfig
from ttcjax.parallel import Share, share


@dataclass(frozen=True)
class RunShare:
    """One training run on some devices."""

    name: str
    """Name of the run; a stage may have several."""
    available: int
    """Devices there are."""
    parts: int
    """Micro-batches of a step."""
    share: Share
    """Rows of a micro-batch on each device."""

    def __str__(self) -> str:
        at_once = f", {self.share.rows} at a time" if self.parts > 1 else ""
        return (
            f"{self.name}: {self.share.rows * self.parts} rows a step{at_once}, {self.share.each} a device on "
            f"{self.share.devices} of {self.available} devices, {self.share.padding} rows of padding"
        )


def micro_batch_share(train: TrainConfig, devices: int, processes: int = 1) -> Share:
    """Return how the rows of a micro-batch stand on the devices; several processes use all of them."""
    return share(train.batch_size // train.accumulate, devices, all_devices=processes > 1)


def run_share(name: str, train: TrainConfig, devices: int, processes: int = 1) -> RunShare:
    """Return how a training run stands on the devices.

    Args:
        name: Of the run.
        train: Its settings.
        devices: How many there are, over all processes.
        processes: How many train together.
    """
    return RunShare(name, devices, train.accumulate, micro_batch_share(train, devices, processes))
