"""The stages, one room each: what a stage is (`metadata.yaml`), its recipe section, its work, its doors."""
