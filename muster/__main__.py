"""``python -m muster``: what a job is started with, and the command line without its script."""

from __future__ import annotations

import sys

from muster.cli import main

if __name__ == "__main__":
    sys.exit(main())
