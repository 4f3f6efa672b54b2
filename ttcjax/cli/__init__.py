"""The `ttcjax` command, and what a program needs of it: configs from files, settings from text."""

from ttcjax.cli.overrides import load_config as load_config
from ttcjax.cli.overrides import override as override
from ttcjax.cli.program import entry as entry
from ttcjax.cli.program import main as main
