"""Tokens: how they are made, found again, and used once."""
