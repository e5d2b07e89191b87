"""The rules of OAuth 2.1 over plain values: no web, no database, no plugin machinery."""
