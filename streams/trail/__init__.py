"""The agent of `key-events`: batches, their chains, and the history of each key."""
