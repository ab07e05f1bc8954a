"""Several studies by one command: what each asks for, and how it is done together."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from bnstudy.config.build import build, request
from bnstudy.config.compose import plain_config, sweep_points
from bnstudy.sweep.request import Request, together
from bnstudy.sweep.settings import StudiesSpec
from bnstudy.validation import ConfigError, nearest


def of_several(master: DictConfig) -> StudiesSpec | None:
    """The studies that the command asks for, where it asks for several."""
    node = OmegaConf.select(master, "study")
    made = None if node is None else build(plain_config(node), "study")
    return made if isinstance(made, StudiesSpec) else None


def requests(loader: ConfigLoader, master: DictConfig, arguments: Sequence[str], studies: StudiesSpec) -> list[Request]:
    """What to do for all of them, those that are done in the same way in one.

    Raises:
        ConfigError: as `sweep_points` and `request`, for any of the studies; one that is named is not there.
    """
    for word in arguments:
        key, _, value = word.partition("=")
        if key.startswith("study.") and (key != "study.names" or not value.startswith("[")):
            raise ConfigError(
                f"{word} is not allowed with several studies: choose some by 'study.names=[cost,affine]'."
            )
    there = loader.get_group_options("study")
    names = there if studies.names is None else studies.names
    for name in names:
        if name not in there:
            raise ConfigError(f"study.names={name} is not allowed: there is no such study{nearest(name, there) or '.'}")
    made = [asked for name in names if (asked := _of_one(loader, master, arguments, name)) is not None]
    if not made:
        raise ConfigError(
            f"study.names=[{','.join(names)}] is not allowed: it must be a list of single studies, or null for all."
        )
    return together(made)


def _of_one(loader: ConfigLoader, master: DictConfig, arguments: Sequence[str], name: str) -> Request | None:
    """What one study asks for; nothing where the option stands for several, whose studies are options, too."""
    own = [f"study={name}", *(word for word in arguments if not word.startswith(("study=", "study.")))]
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(own)
    single = [str(override.input_line) for override in parsed if not override.is_sweep_override()]
    config = loader.load_sweep_config(master, single)  # for the study and what Hydra is told in it
    if of_several(config) is not None:
        return None
    try:
        made = request(sweep_points(loader, config, own), config.hydra.launcher)
    except ConfigError as error:
        raise ConfigError(f"study={name}: {error}") from error
    if made.settings.until is not None:
        raise ConfigError(f"until={made.settings.until} is not allowed with several studies: choose one at a time.")
    return made
