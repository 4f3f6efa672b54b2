"""The `ttcjax` command."""

from ttcjax.cli.program import entry as entry
from ttcjax.cli.program import main as main
