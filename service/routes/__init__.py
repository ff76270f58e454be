"""The routes, one kind per module; each module's `routes` takes what its handlers need."""
