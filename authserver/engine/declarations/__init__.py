"""Compares what files declare with the database, and applies it (R-17)."""
