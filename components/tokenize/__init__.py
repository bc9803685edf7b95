"""Documents to a tokenizer and token shards."""
