"""A checkpoint to a Hugging Face directory."""
