"""Stores without a database, and other stand-ins: for the tests of this project and of plugins."""
