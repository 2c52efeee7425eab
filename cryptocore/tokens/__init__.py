"""Tokens of other systems, kept for their owners."""
