"""`python -m ttcjax.cli` is the `ttcjax` command."""

import sys

from ttcjax.cli.program import entry

sys.exit(entry())
