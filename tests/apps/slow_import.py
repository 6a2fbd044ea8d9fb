"""An app whose import takes longer than anybody waits."""

from __future__ import annotations

import sys
import time

sys.stderr.write("importing\n")
sys.stderr.flush()
time.sleep(1000)
