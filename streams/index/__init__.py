"""Where documents are written and found: one port, two adapters."""
