"""Training of a recipe's stages with Lightning: stages, weights, optimizers, checkpoints. Imports objectives."""
