"""Metrics, logs and traces. May import scoring and the layers below it."""
