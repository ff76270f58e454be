"""Stages of training with Lightning: optimizers, checkpoints, precision. Imports objectives and lower layers."""
