"""Trained models become ONNX bundles. Imports evaluation, scoring and the layers below them."""
