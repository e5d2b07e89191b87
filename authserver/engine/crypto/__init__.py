"""Digests, sealing and signatures: the base of the engine, without any rule of OAuth."""
