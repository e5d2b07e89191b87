"""Finds, checks and asks plugins: `loading` and `asking`."""
