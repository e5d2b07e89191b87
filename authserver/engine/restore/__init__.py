"""What follows when the database was restored from a backup."""
