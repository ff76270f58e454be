"""Arrays become model outputs: queue, batches, ONNX Runtime. Imports inputs and the layers below it."""
