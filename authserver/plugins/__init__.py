"""Finds, orders, checks and asks plugins: `loading`, `kinds` and `asking`."""
