"""A scenario file: its model, its JSON Schema, and its mistakes with file, line and column."""
