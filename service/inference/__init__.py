"""Arrays become model outputs: queue, batches, ONNX Runtime. Imports inputs and errors."""
