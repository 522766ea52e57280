"""What a scenario file says: its model, its JSON Schema, and its mistakes with file, line and column."""
