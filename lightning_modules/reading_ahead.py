"""What loaders do for the model while it works on another batch.

Decoding, resizing and sound features take processor time on every clip, and nothing of it depends on the weights. The
module therefore asks the data module to do all of it where clips are read: in worker processes, if `--data.num_workers`
makes some. `time/waiting_s` is what is left.
"""

from __future__ import annotations

from dataclasses import dataclass

from datamodules.kept_frames import with_frames_kept
from datamodules.loaders import LoadingDataModule
from datamodules.records import Clip
from datamodules.serving import read_ahead
from models.processing import PromptBuilder


@dataclass(frozen=True)
class ReadAhead:
    """Everything that a step needs of a clip, model inputs included.

    Attributes:
        builder: Makes the model inputs.
        has_masks: Whether masks will be propagated, which takes all frames at their own size.
    """

    builder: PromptBuilder
    has_masks: bool

    def __call__(self, clip: Clip) -> Clip:
        """The clip with all of it.

        Raises:
            MediaError: Something cannot be read.
        """
        ready = with_frames_kept(clip) if self.has_masks else clip
        read_ahead(ready)
        self.builder.read_ahead(ready)
        return ready


def let_loaders_prepare(data: object, builder: PromptBuilder, *, has_masks: bool) -> None:
    """Let a data module's loaders do what does not need the model. Call it before they are made.

    Args:
        data: The run's data module; of any other kind nothing is asked.
        builder: Makes the model inputs.
        has_masks: Whether masks will be propagated.
    """
    if isinstance(data, LoadingDataModule):
        data.prefetch_with(ReadAhead(builder, has_masks))
