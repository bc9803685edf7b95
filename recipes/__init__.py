"""Recipes that were run in full. `cairn init` copies one; nothing else reads them."""
