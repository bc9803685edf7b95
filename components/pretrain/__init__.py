"""Train a base model on token shards."""
