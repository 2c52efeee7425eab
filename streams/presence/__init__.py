"""The agent of `sources`: who is heard, what is missing, how much of the vaults is covered."""
