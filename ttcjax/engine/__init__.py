"""Batched sampling: drawing tokens, the state of a batch of rows, and the engine that runs them."""
