"""Explains why a request was refused, asks recorded questions again, and lists the remedies."""
