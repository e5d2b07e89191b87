"""Stores without a database, and other helpers: for the tests of this project and of plugins."""
