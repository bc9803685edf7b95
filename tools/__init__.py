"""Programs for who works on Cairn itself."""
