"""What files declare, compared with what is there, and brought about (R-17)."""
