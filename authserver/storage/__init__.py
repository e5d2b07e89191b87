"""Where records are kept: SQLAlchemy Core over SQLite or PostgreSQL. Engine records go in and come out."""
