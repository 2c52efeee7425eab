"""A simulated company on one machine: a local Key Vault, a fleet, and an attacker."""
