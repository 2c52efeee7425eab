"""Ties between cryptocore and the frameworks of services. Each module is imported by itself and needs its framework."""
