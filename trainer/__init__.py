"""The training program that TorchX starts on every node. It knows token shards and a recipe section, nothing else."""
