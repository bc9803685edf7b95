"""Resolves the sources of a recipe to a lock file, and copies into the store what its own store does not pin."""
