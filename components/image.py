"""What an image may be called: by its digest, or not at all."""

import re

PLACEHOLDER = "placeholder.invalid/cairn"
"""Stands in compiled pipelines until a resource profile names an image: an image cannot contain its own digest."""

PINNED = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
"""A tag can be moved to another image. A digest cannot."""
