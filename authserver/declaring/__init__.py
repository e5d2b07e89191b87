"""Declarations as TOML: read from files with the place of each problem, described for editors, and written."""
