"""Everything that can be broken on purpose, by name."""
