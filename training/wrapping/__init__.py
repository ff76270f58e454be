"""Wrapping: turns an ONNX classifier of any origin into a bundle. Imports the training steps and the layers below."""
