"""The agent of `who`: what each principal does in the vaults, against its own past."""
