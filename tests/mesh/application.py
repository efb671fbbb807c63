"""The CRM as it is in a pod: on a TCP port of every address, as most applications are, and not on a Unix socket as in the demo."""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn

from demo.crm_server import Crm, build
from demo.journal import Journal

if __name__ == "__main__":
    port, database, journal = sys.argv[1:]
    app = build(Crm(Path(database)), Journal(Path(journal)), None)
    uvicorn.run(app, host="0.0.0.0", port=int(port), log_level="warning", timeout_graceful_shutdown=1)
