"""What a reward may ask of System 2, and what the pipeline fills in."""

from typing import Literal

Need = Literal["boxes", "masks"]
"""What System 2 has to fill in: `Rollout.grounding` (boxes) or `Rollout.masks`, which needs boxes itself."""
