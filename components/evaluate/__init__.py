"""Score the exported model on held-out text."""
