"""Model outputs become calibrated scores, flags and drift evidence. Imports inference and the layers below it."""
