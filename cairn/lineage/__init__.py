"""What was made from what: artifacts, the store, attestations, the environment, and the runner of stages."""
