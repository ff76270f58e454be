"""Recipes: the schema of the YAML file, how it is read, and how its components are built. Imports errors only."""
