"""SAM2's video predictor for clips in memory: a subclass that keeps a clip's features, nothing is patched.

`ClipPredictor` adds to the released class what the propagator needs and changes no result: frames as arrays instead
of a folder of files, the features of a whole clip at once, and an inference state of the released format without
files, so that the stock interface (`add_new_points_or_box`, `propagate_in_video`) runs on it as it is.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from sam2.sam2_video_predictor import SAM2VideoPredictor

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ClipFeatures:
    """What SAM2's image encoder makes of every frame of a clip.

    Attributes:
        levels: Feature maps, finest first, one tensor of (frames, channels, height, width) per level.
        positions: Their position encodings, the same for every frame, (1, channels, height, width) per level.
    """

    levels: tuple[Float[torch.Tensor, "frames _ _ _"], ...]
    positions: tuple[Float[torch.Tensor, "1 _ _ _"], ...]

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.levels[0])


def prepare_frames(
    frames: UInt8[np.ndarray, "frames height width 3"], side: int
) -> Float[torch.Tensor, "frames 3 side side"]:
    """Frames as SAM2 sees them: resized to a square (bicubic, antialiased, aspect not kept) and normalized.

    Args:
        frames: RGB of any size.
        side: The model's image size in pixels.
    """
    squares = [np.asarray(Image.fromarray(frame).resize((side, side))) for frame in frames]
    return normalize_frames(torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2))


def normalize_frames(frames: UInt8[torch.Tensor, "*batch 3 side side"]) -> Float[torch.Tensor, "*batch 3 side side"]:
    """RGB bytes to the zero-mean, unit-variance floats that SAM2's encoder expects."""
    mean = torch.tensor(_MEAN, dtype=torch.float32, device=frames.device).view(3, 1, 1)
    std = torch.tensor(_STD, dtype=torch.float32, device=frames.device).view(3, 1, 1)
    return (frames.float() / 255 - mean) / std


class ClipPredictor(SAM2VideoPredictor):  # type: ignore[misc]
    """SAM2's video predictor with in-memory clips; arguments are those of the released class."""

    def encode(self, images: Float[torch.Tensor, "frames 3 side side"]) -> ClipFeatures:
        """Run the image encoder on some frames.

        Args:
            images: From `prepare_frames`, on the model's device.
        """
        _, features, positions, sizes = self._prepare_backbone_features(self.forward_image(images))
        return ClipFeatures(
            levels=tuple(_to_maps(level, size) for level, size in zip(features, sizes, strict=True)),
            positions=tuple(_to_maps(level[:, :1], size) for level, size in zip(positions, sizes, strict=True)),
        )

    def open_state(self, images: Float[torch.Tensor, "frames 3 side side"], size: tuple[int, int]) -> dict[str, Any]:
        """The inference state that the released `init_state` makes of a folder, made of frames in memory.

        Args:
            images: From `prepare_frames`.
            size: (height, width) of the original frames in pixels.
        """
        height, width = size
        return {
            "images": images,
            "num_frames": len(images),
            "offload_video_to_cpu": False,
            "offload_state_to_cpu": False,
            "video_height": height,
            "video_width": width,
            "device": self.device,
            "storage_device": self.device,
            "point_inputs_per_obj": {},
            "mask_inputs_per_obj": {},
            "cached_features": {},
            "constants": {},
            "obj_id_to_idx": OrderedDict(),
            "obj_idx_to_id": OrderedDict(),
            "obj_ids": [],
            "output_dict_per_obj": {},
            "temp_output_dict_per_obj": {},
            "frames_tracked_per_obj": {},
        }


def _to_maps(
    level: Float[torch.Tensor, "places frames channels"], size: tuple[int, int]
) -> Float[torch.Tensor, "frames channels height width"]:
    return level.permute(1, 2, 0).reshape(level.shape[1], level.shape[2], *size)
