"""The key store: one database of key versions, their records, their outbox, and what belongs to them."""
