"""Clients: how they authenticate, their secrets, their registration."""
