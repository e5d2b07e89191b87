"""The signing keys, and the ring of keys that seals what is stored."""
