"""Declarations in TOML: reads them from files with the place of each problem, has their schema, and writes them."""
