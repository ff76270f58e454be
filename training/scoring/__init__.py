"""Scores of examples by a trained model, and their calibration. Imports fitting and the layers below it."""
