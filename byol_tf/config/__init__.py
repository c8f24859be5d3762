"""Configuration of experiments: schema, loading, validation, documentation."""
