"""Stages that sample training data: step labels, trajectories, attempts."""
