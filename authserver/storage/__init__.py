"""Stores the records of the engine, with SQLAlchemy Core over SQLite or PostgreSQL."""
