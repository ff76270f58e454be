"""Reproducible measurements of the service and of training: `python -m benchmarks --help`."""
