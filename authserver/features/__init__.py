"""Capabilities beyond the core: one module each, a plugin like any other, switched on by one line of INI."""
