"""Which memories SAM2 looks back at on a frame, and in which order the frames of a clip are visited.

Pure bookkeeping, no tensors. SAM2's own code decides this for one object at a time, while it gathers the tensors; here
it is apart, so that many objects with different keyframes can be followed in one batch: objects whose layouts have the
same number of memories go together.

The rules are those of SAM2 2.1 at inference (`SAM2Base._prepare_memory_conditioned_features` of sam2 1.1):

- Prompted frames are always looked at, future ones too; if `most_prompted` limits them, the nearest.
- Besides these, the last `spatial - 1` visited frames at distances 1, 2, ... *behind* the frame in the direction of
  travel. On the way back these include frames from the way out, on the other side of the first prompted frame.
- Object pointers: of the prompted frames (only those behind, if `only_past_pointers`), and of up to `pointers - 1`
  frames behind, however far the spatial memory reaches.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sam2.modeling.sam2_utils import select_closest_cond_frames


@dataclass(frozen=True)
class MemoryRules:
    """SAM2's settings that decide which memories count.

    Attributes:
        spatial: Spatial memories at most, one of them for prompted frames (`num_maskmem`).
        stride: Distance between the older spatial memories (`memory_temporal_stride_for_eval`).
        most_prompted: Prompted frames at most, -1 for all (`max_cond_frames_in_attn`).
        pointers: Object pointers at most (`max_obj_ptrs_in_encoder`); 0 when pointers are not used.
        only_past_pointers: Whether pointers of prompted frames ahead are left out
            (`only_obj_ptrs_in_the_past_for_eval`).
        has_signed_offsets: Whether a pointer ahead has a negative offset (`use_signed_tpos_enc_to_obj_ptrs`).
    """

    spatial: int
    stride: int
    most_prompted: int
    pointers: int
    only_past_pointers: bool
    has_signed_offsets: bool


@dataclass(frozen=True)
class MemoryLayout:
    """The memories that one object looks at on one frame.

    Attributes:
        spatial: (frame, age slot) pairs; slot `MemoryRules.spatial` - 1 is for prompted frames, 0 is the frame right
            behind, 1 the one before it.
        pointers: (frame, offset) pairs; the offset is the distance in frames, positive behind.
    """

    spatial: tuple[tuple[int, int], ...]
    pointers: tuple[tuple[int, int], ...]

    @property
    def counts(self) -> tuple[int, int]:
        """Number of spatial memories and of pointers; layouts with equal counts fit in one batch."""
        return len(self.spatial), len(self.pointers)


def memory_layout(
    frame: int,
    prompted: Collection[int],
    visited: Collection[int],
    rules: MemoryRules,
    *,
    clip_frames: int,
    is_way_back: bool,
) -> MemoryLayout:
    """The memories of one object on one frame.

    Args:
        frame: The frame to be segmented, 0-based, not a prompted one.
        prompted: Prompted frames of the object, ascending, at least one.
        visited: Frames already segmented without a prompt.
        rules: SAM2's settings.
        clip_frames: Number of frames of the clip.
        is_way_back: Whether the clip is traveled backward.
    """
    selected, unselected = select_closest_cond_frames(frame, dict.fromkeys(prompted), rules.most_prompted)
    behind = 1 if is_way_back else -1
    known = {*visited, *unselected}
    spatial = [(prompt, rules.spatial - 1) for prompt in selected]
    for age in range(rules.spatial - 1, 0, -1):
        earlier = _frame_behind(frame, age, rules.stride, behind)
        if earlier in known:
            spatial.append((earlier, age - 1))
    pointers: list[tuple[int, int]] = []
    if rules.pointers:
        for prompt in selected:
            offset = (prompt - frame) * behind
            if offset >= 0 or not rules.only_past_pointers:
                pointers.append((prompt, offset if rules.has_signed_offsets else abs(offset)))
        pointers += [
            (frame + behind * distance, distance)
            for distance in range(1, min(clip_frames, rules.pointers))
            if frame + behind * distance in known
        ]
    return MemoryLayout(tuple(spatial), tuple(pointers))


def frame_at_wave(first_prompted: int, wave: int, clip_frames: int) -> tuple[int, bool]:
    """Which frame an object is at in a wave, if all objects of a clip advance by one frame per wave.

    From its first prompted frame an object travels to the end of the clip, then from that frame back to the start. In
    any wave all objects on their way out have come equally far, and all on their way back are on the same frame, so
    their layouts mostly have equal counts. Prompted frames on the way are visited, with nothing to do.

    Args:
        first_prompted: The object's first prompted frame.
        wave: 1 .. clip_frames - 1.
        clip_frames: Number of frames of the clip.

    Returns:
        The frame, and whether the object is on its way back.
    """
    ahead = first_prompted + wave
    return (ahead, False) if ahead < clip_frames else (clip_frames - 1 - wave, True)


def _frame_behind(frame: int, age: int, stride: int, behind: int) -> int:
    """The frame of the given age; beyond the nearest one, only every `stride`-th frame of the clip counts."""
    if age == 1:
        return frame + behind
    if behind < 0:
        return ((frame - 2) // stride) * stride - (age - 2) * stride
    return -(-(frame + 2) // stride) * stride + (age - 2) * stride
