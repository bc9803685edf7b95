"""Two projects with one store, at once: both end, and what each leaves is what a project alone would have left."""

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from cairn.audit.walk import audit
