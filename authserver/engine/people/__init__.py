"""People: user names, sign-in, their account."""
