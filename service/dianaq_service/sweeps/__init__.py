"""Sweeps: many jobs in one submission (`service`), and what they reached in one table (`table`)."""
