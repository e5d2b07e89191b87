"""Features beyond the core: each is one module and a plugin like any other, which one line of INI switches on."""
