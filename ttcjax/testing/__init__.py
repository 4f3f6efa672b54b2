"""Fakes for tests, this project's and its users'."""

from ttcjax.testing.scripted import ScriptedOps

__all__ = ["ScriptedOps"]
