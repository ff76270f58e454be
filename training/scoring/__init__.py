"""Scores of stored examples by a trained model, and their calibration. Imports evaluation, fitting and below."""
