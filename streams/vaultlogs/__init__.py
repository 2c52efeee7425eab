"""Key Vault logs as they really look, made into VaultAccess; and the agent of `vault-access`, which takes them."""
