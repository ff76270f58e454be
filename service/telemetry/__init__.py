"""Metrics, logs and traces. Imports scoring and the layers below it."""
