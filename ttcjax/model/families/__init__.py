"""Model families: one file each, and a line of `ttcjax.model.families.known.FAMILIES`."""
