"""Strategies, one file each; `ttcjax.search.registry` knows them by name."""
