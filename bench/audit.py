"""How fast an audit reads: bytes hashed in a second of processor time, beside sha256 alone, and the memory it takes.

    python bench/audit.py [--gigabytes 10] [--files 8] [--folder DIRECTORY]

The files are sparse, so they take no room on the disk; what is measured is reading and hashing, not the disk.
"""

import argparse
import hashlib
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from cairn.audit.reading import BLOCK, Place, Reader


def main() -> None:
    """Print a line of JSON for a program, or a person."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=10)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=None)
    asked = parser.parse_args()
    alone = sha256_alone()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        size = int(asked.gigabytes * 1e9) // asked.files
        places = []
        for index in range(asked.files):
            path = Path(folder, f"{index}.bin")
            with open(path, "wb") as file:
                file.truncate(size)
            places.append(Place(str(path)))
        before, began, used = peak(), time.monotonic(), processor()
        reader = Reader(read_bytes=True)
        reader.look(places)
        took, used = time.monotonic() - began, processor() - used
    total = size * asked.files / 1e9
    print(f"sha256 alone: {alone:.2f} GB/s on one core")
    print(f"audit: {total:.1f} GB in {took:.1f} s, {total / took:.2f} GB/s on {len(os.sched_getaffinity(0))} cores")
    print(f"audit: {total / used:.2f} GB for each second of a core, {total / used / alone:.0%} of sha256 alone")
    print(f"memory: {before / 1e6:.0f} MB before, {peak() / 1e6:.0f} MB at most")


def sha256_alone() -> float:
    """GB/s of one core over a block that stays in its cache; the best of five, for others may be at work."""
    block, best = bytearray(BLOCK), 0.0
    for _ in range(5):
        began, digest = time.thread_time(), hashlib.sha256()
        for _ in range(4000):
            digest.update(block)
        best = max(best, 4000 * BLOCK / 1e9 / (time.thread_time() - began))
    return best


def processor() -> float:
    """Seconds of processor time of this process, of users and of the system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak() -> int:
    """The most memory that this process ever held, in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


if __name__ == "__main__":
    main()
