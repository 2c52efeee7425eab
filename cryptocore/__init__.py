"""Envelope encryption whose every use leaves a sealed audit event."""
