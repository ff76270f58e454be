"""The engine process: other processes hand it inputs in shared memory, and get the outputs there."""
