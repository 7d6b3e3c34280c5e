"""The settings that are being chosen: a recipe of `configs`, under the settings that are given.

draft = Draft(facts, {"steps": 300})
draft.choose("optim.lr", 1e-4, "for pretrained weights")    # unless it is given
config = build(draft.settings)
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import cache
from typing import Any, NamedTuple

from segvit.config import TrainConfig
from segvit.config_files import plain
from segvit.errors import UserError
from segvit.models.create import weightless
from segvit.models.structure import restores_by_tap
from segvit.recipes.facts import RunFacts
from segvit.training.settings import flat

OWN_SIZES = ("model.embed_dim", "model.depth", "model.num_heads")
"""Settings that make a network for which no pretrained weights exist."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A setting that was chosen."""

    name: str
    """Setting, such as `optim.lr`."""
    value: Any
    reason: str

    @property
    def flag(self) -> str:
        """The flag that sets this value on the command line."""
        name = self.name.replace("_", "-")
        if isinstance(self.value, bool):
            section, _, last = name.rpartition(".")
            return f"--{section}{'.' * bool(section)}{'' if self.value else 'no-'}{last}"
        values = self.value if isinstance(self.value, tuple) else (self.value,)
        return " ".join([f"--{name}", *map(_typed, values)])


def _typed(value: Any) -> str:
    """Return a value in the form that its flag takes."""
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


class Draft:
    """The settings so far: a recipe of `configs`, and over it what is given.

    Attributes:
        scratch: True if the run starts from random weights.
        lora: True if the backbone learns by low-rank weights.
        cached: True if features of frozen blocks are cached.
        base: settings of the recipe by name.
        settings: all settings by name, as chosen so far.
        choices: what was chosen, with its reasons, by name.
    """

    def __init__(self, facts: RunFacts, given: Mapping[str, Any]) -> None:
        self.facts, self.given = facts, given
        self.scratch = facts.model is None and from_scratch(given)
        self.lora = bool(given.get("optim.lora_rank"))
        self.cached = given.get("data.cache_features") is not None
        name = "finetune_cpu" if facts.machine.device == "cpu" else "finetune"
        self.base = settings_of("scratch" if self.scratch else name)
        self.settings: dict[str, Any] = {**self.base, "output": TrainConfig().output, **given}
        self.choices: dict[str, Choice] = {}

    def choose(self, name: str, value: Any, reason: str) -> None:
        """Set a setting and note the reason, unless the setting is given."""
        if name not in self.given:
            self.settings[name] = value
            self.choices[name] = Choice(name=name, value=value, reason=reason)

    def adopt(self, name: str, reason: str) -> None:
        """Choose the recipe's value of a setting if it is not the default."""
        if self.base[name] != default_of(name):
            self.choose(name, self.base[name], reason)

    def leave(self, name: str) -> None:
        """Leave a setting at its default, whatever the recipe's value, unless it is given."""
        if name not in self.given:
            self.settings[name] = default_of(name)

    @property
    def restores(self) -> bool:
        """True if the network is new and its up-sampling is tap."""
        tap = restores_by_tap(self.settings["model.structure"], self.settings["model.upsampling"])
        return tap and self.facts.model is None

    @property
    def scale(self) -> float:
        """Number of steps as a share of the recipe's."""
        return float(self.settings["steps"] / self.base["steps"])


def from_scratch(given: Mapping[str, Any]) -> bool:
    """Return True if the given settings leave no pretrained weights to start from."""
    if given.get("model.pretrained_file") is not None or given.get("model.pretrained"):
        return False
    return given.get("model.pretrained") is False or any(given.get(name) is not None for name in OWN_SIZES)


@cache
def settings_of(recipe: str) -> Mapping[str, Any]:
    """Return the settings of a shipped recipe by name."""
    return flat_settings(TrainConfig.load(recipe))


def default_of(name: str) -> Any:
    """Return the default of a setting."""
    return flat_settings(TrainConfig())[name]


class Shape(NamedTuple):
    """Sizes of a backbone."""

    patch: int
    """Side of a patch in pixels."""
    depth: int
    """Number of blocks."""
    width: int
    """Width of its tokens."""


@cache
def shape_of(backbone: str) -> Shape:
    """Return the sizes of a backbone of timm."""
    vit = weightless(backbone)
    return Shape(patch=int(vit.patch_embed.patch_size[0]), depth=len(vit.blocks), width=vit.embed_dim)


def flat_settings(config: TrainConfig) -> dict[str, Any]:
    """Return settings by name, with values as in the config."""
    return dict(flat(asdict(config)))


def parse_settings(settings: Mapping[str, Any]) -> TrainConfig:
    """Return a config with some settings by name, over the defaults.

    Raises:
        UserError: a setting is unknown or has a bad value, or a section has a value.
    """
    for name in settings:
        if is_dataclass(getattr(TrainConfig(), name, None)):
            raise UserError(f"{name} is a section: give a mapping of its settings; found {settings[name]!r}")
    return TrainConfig.from_dict(plain(_nested(settings)), source="settings")


def build(settings: Mapping[str, Any]) -> TrainConfig:
    """Return a config of all settings by name, with values as in a config."""
    default = TrainConfig()
    changes = {
        key: replace(getattr(default, key), **value) if is_dataclass(getattr(default, key)) else value
        for key, value in _nested(settings).items()
    }
    return replace(default, **changes)


def _nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by name as a dict of sections."""
    nested: dict[str, Any] = {}
    for name, value in settings.items():
        section, _, key = name.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[key] = value
    return nested
