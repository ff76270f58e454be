"""A recipe made from a user's two folders or files, without one being written. Imports data and the layers below it."""
