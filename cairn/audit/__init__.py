"""What can be proved of an artifact's past: a walk back along its attestations, with a verdict at every step."""
