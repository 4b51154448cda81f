"""Write the adapter of a run as a PEFT folder, from any of its checkpoints; a run does so by itself when it ends.

    python scripts/export.py runs/refavs/version_0
    python scripts/export.py runs/refavs/version_0 --checkpoint step=40.ckpt --output adapter_40

Works while the run goes on, and on checkpoints of any number of processes. The base weights are not read.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from datamodules.errors import ConfigError
from lightning_modules.export_run import export_checkpoint


def main() -> int:
    """Run the command; 2 for what cannot be exported."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--checkpoint", type=Path, help="file or folder; the newest of the run if left out")
    parser.add_argument("--output", type=Path, help="folder to write; `adapter` in the run folder if left out")
    arguments = parser.parse_args()
    output = arguments.output or arguments.run / "adapter"
    try:
        export_checkpoint(arguments.run, output, checkpoint=arguments.checkpoint)
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    print(f"adapter written to {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
