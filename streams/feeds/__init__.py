"""Feeds: Key Vault logs from where Azure puts them into the topic `vault-access`, each record at least once."""
