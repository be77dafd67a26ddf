"""The registry in SQL: SQLite by default, PostgreSQL for many gateways."""
