"""Stages that train a model."""
