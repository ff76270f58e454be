"""The command line: one module for each group of commands. Imports any other package; only `__main__` imports it."""
