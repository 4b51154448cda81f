"""Add a trained adapter into its base and write a Hugging Face folder that plain transformers loads.

    python scripts/merge.py runs/refavs/version_0/adapter --output merged
    python scripts/merge.py runs/refavs/version_0/adapter --output merged --base Qwen/Qwen2.5-Omni-7B --dtype bfloat16

The folder has the layout of released thinkers; `--model.reasoner.path merged` starts a run from it. Half precision
rounds small adapters away: without `--dtype`, weights are written in float32 where more than 5 % of the adapter would
be lost.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from datamodules.errors import ConfigError
from models.merging import MOST_LOST, merge_adapter


def main() -> int:
    """Run the command; 2 for what cannot be merged."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter", type=Path, help="PEFT folder")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--base", help="folder or hub id of the base; the one that the adapter names if left out")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        help="float32, or the stored one where it keeps the adapter, if left out",
    )
    arguments = parser.parse_args()
    try:
        merged = merge_adapter(arguments.adapter, arguments.output, base=arguments.base, dtype=arguments.dtype)
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    print(
        f"merged model written to {arguments.output} in {merged.dtype}; rounding has changed {merged.lost:.1%} of what "
        "the adapter adds"
    )
    if merged.lost > MOST_LOST:
        sys.stderr.write("warning: the merged model is not the trained one. Leave --dtype out to keep the adapter.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
