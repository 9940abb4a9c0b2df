"""How times are written, by language; Django finds the languages below by name."""
