"""``python -m poolmgr`` is the command ``poolmgr``."""

import sys

from poolmgr.cli import main

sys.exit(main())
