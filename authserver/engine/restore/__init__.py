"""The work after the database was restored from a backup."""
