"""Digests, sealing and signatures: the ground of the engine, which knows nothing of OAuth."""
