"""Key Vault logs as they really look, made into VaultAccess."""
