"""How times are written in English pages."""
