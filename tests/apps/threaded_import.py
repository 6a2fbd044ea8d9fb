"""An app that starts a thread when it is imported, and so cannot be forked."""

from __future__ import annotations

import threading

threading.Thread(target=threading.Event().wait, name="metrics", daemon=True).start()
