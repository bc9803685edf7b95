"""Cairn: from raw text to a pre-trained base language model, every step of which can be walked back."""
