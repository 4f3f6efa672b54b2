"""Search strategies: one file each in `strategies`, one contract, one driver for real and for scripted engines.

`run` runs any strategy on a `Session`; `parse` reads one from text; `register` adds one of your own.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ttcjax.search.contract import DeviceStrategy as DeviceStrategy
    from ttcjax.search.contract import HostStrategy as HostStrategy
    from ttcjax.search.contract import Ops as Ops
    from ttcjax.search.contract import Strategy as Strategy
    from ttcjax.search.ops import run as run
    from ttcjax.search.registry import parse as parse
    from ttcjax.search.registry import register as register
    from ttcjax.search.session import Outcome as Outcome
    from ttcjax.search.session import Session as Session

_PLACES = {
    "DeviceStrategy": "contract",
    "HostStrategy": "contract",
    "Ops": "contract",
    "Outcome": "session",
    "Session": "session",
    "Strategy": "contract",
    "parse": "registry",
    "register": "registry",
    "run": "ops",
}

__all__ = [
    "DeviceStrategy",
    "HostStrategy",
    "Ops",
    "Outcome",
    "Session",
    "Strategy",
    "parse",
    "register",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
