"""Payloads (encoded images, texts) become arrays that a model takes. Imports errors and the layers beside it."""
