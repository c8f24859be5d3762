"""The experiment as a file: schema, loading and messages."""
