"""Several studies by one command: builds the requests of all."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig, OmegaConf

from bnstudy.config.build import build_request, build_spec
from bnstudy.config.compose import compose_sweep, to_plain
from bnstudy.sweep.request import Request, together
from bnstudy.sweep.settings import StudiesSpec
from bnstudy.validation import ConfigError, nearest


def find_studies(master: DictConfig) -> StudiesSpec | None:
    """The several studies that a composed config names; None if it names one or none."""
    node = OmegaConf.select(master, "study")
    study = None if node is None else build_spec(to_plain(node), "study")
    return study if isinstance(study, StudiesSpec) else None


def build_requests(
    loader: ConfigLoader,
    master: DictConfig,
    overrides: Sequence[str],
    studies: StudiesSpec,
    arguments: Sequence[str] = (),
) -> list[Request]:
    """Build the requests of several studies. Studies with the same settings and launcher share one.

    arguments: those of the command line, as typed: the overrides and Hydra's flags.
    """
    for word in overrides:
        key, _, value = word.partition("=")
        if key.startswith("study.") and (key != "study.names" or not value.startswith("[")):
            raise ConfigError(
                f"{word} is not allowed with several studies: choose some by 'study.names=[cost,affine]'."
            )
    known = loader.get_group_options("study")
    names = known if studies.names is None else studies.names
    for name in (name for name in names if name not in known):
        raise ConfigError(f"study.names={name} is not allowed: there is no such study{nearest(name, known) or '.'}")
    built = [_build_for_study(loader, master, overrides, name, arguments) for name in names]
    requests = [request for request in built if request is not None]
    if not requests:
        raise ConfigError(
            f"study.names=[{','.join(names)}] is not allowed: it must be a list of single studies, or null for all."
        )
    return together(requests)


def _build_for_study(
    loader: ConfigLoader, master: DictConfig, overrides: Sequence[str], name: str, arguments: Sequence[str]
) -> Request | None:
    """Build the request of one study. None for an option that stands for several, which have options of their own."""
    own = [f"study={name}", *(word for word in overrides if not word.startswith(("study=", "study.")))]
    config = loader.load_sweep_config(master, [word for word in own if word.startswith(("study=", "scale="))])
    if find_studies(config) is not None:
        return None
    try:
        request = build_request(
            compose_sweep(loader, config, own), config.hydra.launcher, arguments_for(name, arguments)
        )
    except ConfigError as error:
        raise ConfigError(f"study={name}: {error}") from error
    if request.settings.until is not None:
        raise ConfigError(f"until={request.settings.until} is not allowed with several studies: choose one at a time.")
    return request


def arguments_for(study: str, arguments: Sequence[str]) -> list[str]:
    """The arguments of a command on several studies as those of a command on one."""
    own = [word for word in arguments if not word.startswith("study.names=")]
    return [f"study={study}" if word.startswith("study=") else word for word in own]
