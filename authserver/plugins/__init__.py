"""Finds, orders, checks and asks plugins: `loading` and `asking`."""
