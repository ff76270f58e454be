"""Processes and listening sockets around the application. Imports any other package; only `__main__` imports it."""
