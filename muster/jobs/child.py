"""The name by which runners that were started by an earlier version start a step's process."""

import sys
from pathlib import Path

from muster.jobs.running.child import main

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
