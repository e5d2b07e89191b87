"""authserver: an OAuth 2.1 authorization server whose policies are plugins."""
