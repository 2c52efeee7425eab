"""A line of the trail, in parts: its words, its values, its rules, its schema, and the quick way to read it."""
