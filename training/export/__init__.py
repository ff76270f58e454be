"""Export of trained models as ONNX bundles in full or lower precision. Imports scoring, evaluation and below."""
