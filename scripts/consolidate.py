"""Turn a checkpoint folder, in which every process wrote what it kept, into one file.

    python scripts/consolidate.py runs/refavs/version_0/checkpoints/last.ckpt whole.ckpt

Resuming, testing and exporting read folders as they are; a single file is easier to move and to look into.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lightning_modules.sharded_checkpoint import consolidate, is_sharded


def main() -> int:
    """Run the command; 2 for what is no such folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="folder")
    parser.add_argument("output", type=Path, help="file to write")
    arguments = parser.parse_args()
    if not is_sharded(arguments.checkpoint):
        sys.stderr.write(f"error: expected a folder of a run with sharded weights, found {arguments.checkpoint}\n")
        return 2
    consolidate(arguments.checkpoint, arguments.output)
    print(f"checkpoint written to {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
