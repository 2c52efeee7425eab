"""The agent of `findings`: alerts, their deliveries, and the canary."""
