"""The project's own exception types; everything else that goes wrong is a built-in exception."""


class ConfigError(ValueError):
    """A setting, or a combination of settings, that cannot work; the message names the dotted key and the fix."""


class DataLayoutError(FileNotFoundError):
    """A data root that does not look like the benchmark it should hold; the message shows the expected tree."""


class MediaError(RuntimeError):
    """A frame, video, mask or sound file that is missing or cannot be decoded; the message names file and clip."""


class RunError(RuntimeError):
    """A training that must not go on, such as one whose gradient is no number; the message says what to change."""


class RewardError(RuntimeError):
    """A reward that raised or returned something other than one finite float or None per rollout; names the term."""
