"""The command line: `fit`, `validate`, `test` and `predict` over configuration files and flags.

LightningCLI does the work. What is added here: rewards as a top-level mapping that flags can extend, change and reduce;
named callbacks, so that a later file changes single settings of one; errors in one line; run folders; a resume flag;
checkpoints that survive a kill at any moment. The command line always wins over hyperparameters of a checkpoint.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

from datamodules.errors import ConfigError, DataLayoutError, MediaError, RewardError, RunError
from lightning_modules.checkpoint import AtomicCheckpointIO
from lightning_modules.cli_messages import one_line
from lightning_modules.cli_parser import OneLineParser, SaveRunConfig
from lightning_modules.cli_resume import (
    CONFIG_NAME,
    changed_settings,
    expand_resume,
    find_flag,
    free_version,
    logger_place,
    resume_command,
)
from lightning_modules.cli_rewards import problem, reward_flags, without_reward_flags
from lightning_modules.cli_seeds import fill_seeds
from lightning_modules.cli_strategy import ShardingSettings, chosen_strategy, environment_plugins, refuse_missing
from lightning_modules.quiet import quiet
from lightning_modules.two_system_module import TwoSystemModule
from rewards.base import Reward

_OWN_ERRORS = (ConfigError, DataLayoutError, MediaError, RewardError, RunError, MisconfigurationException)
_CONFIG_ERRORS = (ConfigError, DataLayoutError, MisconfigurationException)
_KEYWORDS = ("last", "best", "hpc", "registry")


class OmniCLI(LightningCLI):
    """Parses, builds and runs one command."""

    def __init__(self, arguments: Sequence[str], *, callbacks: Mapping[str, type[Callback]]) -> None:
        """Parse the command line, build everything and run.

        Args:
            arguments: The command line without the program's name.
            callbacks: Callbacks by the key that their settings are found under; all of them are always there.
        """
        self.named_callbacks = callbacks
        self.resumed = find_flag(arguments, "--resume")
        self._described: list[tuple[Namespace, dict[str, Any]]] = []
        super().__init__(
            L.LightningModule,
            L.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveRunConfig,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=0,
            parser_class=OneLineParser,
            parser_kwargs={"allow_abbrev": False},
            trainer_defaults={
                "use_distributed_sampler": False,
                "log_every_n_steps": 1,
                "num_sanity_val_steps": 0,
                "enable_model_summary": False,
            },
            auto_configure_optimizers=False,
            args=list(arguments),
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add rewards, named callbacks and the settings of the process."""
        for key, callback in self.named_callbacks.items():
            parser.add_lightning_class_args(callback, key)
        parser.add_argument(
            "--rewards",
            type=dict[str, Reward | None],
            default={},
            help="Reward terms by name. Change one: --rewards.format.weight 0.5. Add one: --rewards.mine "
            "my_pkg.MyReward. Remove one: --rewards.length null.",
        )
        parser.link_arguments("rewards", "model.init_args.rewards")
        parser.add_argument(
            "--threads",
            type=PositiveInt | None,
            default=None,
            help="CPU threads of PyTorch per process. Null takes 1 on a machine without an accelerator, where the "
            "models are small and more threads only wait for each other, and PyTorch's own choice elsewhere.",
        )
        parser.add_argument("--sharding", type=ShardingSettings, default=ShardingSettings())
        parser.add_argument("--resume", type=str | None, default=None, help="Run folder to go on with (fit only).")
        parser.add_argument("--debug", action="store_true", help="Show the traceback of every error.")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the command line, refuse reward flags that fit no term, and place the run folder."""
        arguments = list(args) if isinstance(args, list) else []
        keys = list(map(str, self._subcommand_parsers["fit"].get_defaults().keys()))
        for one in (parser, *self._subcommand_parsers.values()):
            if isinstance(one, OneLineParser):
                one.known_keys, one.arguments = keys, arguments
        expanded = expand_resume(arguments)
        self._check_reward_flags(parser, expanded)
        self.config = parser.parse_args(expanded)
        self._refuse_unused_rewards(parser)
        self._refuse_missing_checkpoint(parser)
        self._place_run()

    def _check_reward_flags(self, parser: LightningArgumentParser, arguments: Sequence[str]) -> None:
        flags = reward_flags(arguments)
        if not flags or {"-h", "--help"} & set(arguments):
            return
        described = parser.parse_args(without_reward_flags(arguments))
        found = problem(flags, list(described[described.subcommand].rewards or {}))
        if found:
            parser.error(found)

    def _refuse_unused_rewards(self, parser: LightningArgumentParser) -> None:
        """Drop removed terms from the configuration; a model that takes no rewards must not be given any."""
        config = self.config[self.config.subcommand]
        config.rewards = {name: term for name, term in (config.rewards or {}).items() if term is not None}
        model_class = _imported(config.model.class_path)
        if "rewards" in signature(model_class).parameters:
            config.model.init_args.rewards = config.rewards
        elif config.rewards:
            parser.error(f"rewards: {model_class.__name__} takes no rewards; leave --rewards out")

    def _refuse_missing_checkpoint(self, parser: LightningArgumentParser) -> None:
        """Say so before any weights are read."""
        path = self.config[self.config.subcommand].get("ckpt_path")
        if path and path not in _KEYWORDS and "://" not in path and not Path(path).exists():
            near = sorted(Path(path).parent.glob("*.ckpt"))
            there = f"; there are {', '.join(map(str, near))}" if near else ""
            parser.error(f"ckpt_path: there is no file {path}{there}")

    def _place_run(self) -> None:
        """Name the run folder: the resumed one, or one of its own for commands that do not train."""
        verb = self.config.subcommand
        config = self.config[verb]
        config.debug, config.resume = False, None
        loggers = config.trainer.logger if isinstance(config.trainer.logger, list) else [config.trainer.logger]
        for logger in loggers:
            settings = logger.get("init_args") if isinstance(logger, Namespace) else None
            if settings is None or not {"save_dir", "name", "version"} <= set(settings.keys()):
                continue
            self._described.append((settings, {name: settings[name] for name in ("save_dir", "name", "version")}))
            if verb != "fit" and settings.version is None:
                settings.version = free_version(Path(settings.save_dir) / (settings.name or ""), verb)
            elif verb == "fit" and self.resumed:
                for name, value in logger_place(Path(self.resumed)).items():
                    settings[name] = value

    def _forget_place(self) -> None:
        """Keep out of the saved configuration what holds for this one command: its folder, and what it resumed.

        Another command that starts from the saved file gets a folder of its own.
        """
        for settings, described in self._described:
            for name, value in described.items():
                settings[name] = value
        if self.resumed:
            self.config[self.subcommand].ckpt_path = None

    def _parse_ckpt_path(self) -> None:
        """Take nothing from the checkpoint: what the command line and the files say is what runs."""

    def _set_seed(self) -> None:
        """Seed everything, and let the seeds that were left open follow."""
        super()._set_seed()
        fill_seeds(self.config[self.subcommand])

    def before_instantiate_classes(self) -> None:
        """Set the number of threads, and say what a resumed run changes."""
        config = self.config[self.subcommand]
        threads = config.threads
        if threads is None and (config.trainer.accelerator == "cpu" or not torch.accelerator.is_available()):
            threads = 1
        if threads is not None:
            torch.set_num_threads(threads)
        if self.resumed and self.subcommand == "fit":
            current = yaml.safe_load(self._parser("fit").dump(config, skip_none=False))
            for line in changed_settings(Path(self.resumed) / CONFIG_NAME, current):
                rank_zero_info(f"changed since the run was started: {line}")

    def instantiate_classes(self) -> None:
        """Build everything.

        Raises:
            ConfigError: A class refused its settings; jsonargparse hides its words in a tree of what else was tried.
        """
        try:
            super().instantiate_classes()
        except ValueError as error:
            if isinstance(error, _OWN_ERRORS) or "Does not validate against any" not in str(error):
                raise
            raise ConfigError(one_line(str(error), ())) from error

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:  # noqa: ANN401 (any argument of the trainer)
        """Build the trainer with crash-safe checkpoints, unless another way to write them is configured."""
        self._forget_place()
        plugins = self._get(self.config_init, "trainer").get("plugins") or []
        plugins = list(plugins) if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(AtomicCheckpointIO())
        if not any(isinstance(plugin, ClusterEnvironment) for plugin in plugins):
            plugins += environment_plugins()
        return super().instantiate_trainer(plugins=plugins, **kwargs)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> L.Trainer:
        """Leave out named callbacks that the trainer's switches turn off; Lightning calls having both a mistake."""
        config["strategy"] = chosen_strategy(config.get("strategy"), self._get(self.config_init, "sharding"))
        refuse_missing(config.get("accelerator"), config.get("num_nodes", 1))
        if self.subcommand != "fit":
            config["enable_checkpointing"] = False
        switches = {"enable_checkpointing": Checkpoint, "enable_progress_bar": ProgressBar}
        off = tuple(kind for switch, kind in switches.items() if config.get(switch) is False)
        return super()._instantiate_trainer(config, [one for one in callbacks if not isinstance(one, off)])

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Leave Lightning's own table of results out where a callback prints a better one, and keep no predictions.

        They are on disk by then, and in memory they would hold every clip that was looked at.
        """
        arguments = super()._prepare_subcommand_kwargs(subcommand)
        if subcommand == "predict":
            arguments["return_predictions"] = False
        if "verbose" in arguments and isinstance(self.model, TwoSystemModule):
            arguments["verbose"] = False
        return arguments

    def _run_subcommand(self, subcommand: str) -> None:
        """Run; a training that was stopped on request says how to go on.

        Raises:
            SystemExit: The run was stopped, with the exit code that stands for an interrupted program.
        """
        try:
            super()._run_subcommand(subcommand)
        except (SIGTERMException, SystemExit):
            if not self.trainer.interrupted:
                raise
            if subcommand == "fit" and self.trainer.is_global_zero:
                sys.stderr.write(f"{self._how_to_go_on()}\n")
            raise SystemExit(130) from None

    def _how_to_go_on(self) -> str:
        checkpoint = self.trainer.checkpoint_callback
        last = getattr(checkpoint, "last_model_path", "")
        if not last:
            return "Stopped before the first checkpoint."
        return f"Stopped; saved in {last}\nGo on with: {resume_command(Path(last).parent.parent)}"


def _imported(class_path: str) -> type:
    module, _, name = class_path.rpartition(".")
    found = getattr(import_module(module), name)
    if not isinstance(found, type):
        raise ConfigError(f"model: expected a class, found {class_path}. Set --model to a LightningModule.")
    return found


def run(arguments: Sequence[str], *, callbacks: Mapping[str, type[Callback]]) -> int:
    """Run a command and turn the project's own errors into a message.

    Args:
        arguments: The command line without the program's name.
        callbacks: Named callbacks; see `OmniCLI`.

    Returns:
        Exit code: 0 when the command ran to its end, 2 for settings or data that cannot work, 1 for what went wrong
        on the way. An interrupted run, and what the parser refuses, exit at once.
    """
    if "--debug" not in arguments:
        quiet()
    try:
        OmniCLI(arguments, callbacks=callbacks)
    except _OWN_ERRORS as error:
        if "--debug" in arguments:
            raise
        if not getattr(error, "is_said", False):
            sys.stderr.write(f"error: {error}\n")
        return 2 if isinstance(error, _CONFIG_ERRORS) else 1
    return 0
