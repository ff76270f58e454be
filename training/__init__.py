"""Offline training: from a recipe to a calibrated, evaluated, exported bundle."""
