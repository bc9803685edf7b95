"""Turns source objects into documents: read, normalised, filtered, deduplicated and split, with every drop counted."""
