"""Models: networks with their input conversion, predictions and exported scores. Imports architectures and below."""
