"""Says why a request was refused, asks recorded questions again, and knows the remedies."""
