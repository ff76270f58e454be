"""The command line: one module per group of commands. May import every other package of `training`."""
