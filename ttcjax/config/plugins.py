"""Lists of things by name that others can add to: by a call, or by an entry point of an installed package."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Things by name: this library's own, those registered by a call, and those of entry points."""

    def __init__(self, group: str, own: Mapping[str, T | str]):
        """Make the list.

        Args:
            group: Of the entry points.
            own: Things, or where they are, `module:name`, imported when they are asked for.
        """
        self.group = group
        self._own: dict[str, T | str] = dict(own)

    def register(self, name: str, thing: T) -> T:
        """Add a thing, and return it.

        Raises:
            ValueError: Another one has the name.
        """
        if self._own.setdefault(name, thing) is not thing:
            raise ValueError(f"{name!r} is taken in {self.group}: give yours another name")
        return thing

    def __getitem__(self, name: str) -> T:
        if name in self._own:
            thing = self._own[name]
            if not isinstance(thing, str):
                return thing
            module, _, attribute = thing.partition(":")
            return getattr(importlib.import_module(module), attribute)
        return self._installed[name].load()

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from (name for name in self._installed if name not in self._own)

    def __len__(self) -> int:
        return len(list(iter(self)))

    @functools.cached_property
    def _installed(self) -> dict[str, importlib.metadata.EntryPoint]:
        return {point.name: point for point in importlib.metadata.entry_points(group=self.group)}
