"""Rules, findings, alerts and their delivery: what is worth telling a person, and how."""
