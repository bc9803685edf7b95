"""Replay: what is deterministic is done again, on a sample, and compared with what an attestation says came out.

A signature proves who said it; a replay proves that it is so, for what was sampled. `driver.py` is where to begin; each
stage has a file that says what is done again and what is compared.
"""

from cairn.audit.replay.driver import replay
from cairn.audit.replay.job import Fetch, Sample

__all__ = ["Fetch", "Sample", "replay"]
