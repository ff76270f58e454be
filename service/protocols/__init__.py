"""Scoring protocols, one subpackage each, independent of each other. Imports pipeline and the layers below it."""
