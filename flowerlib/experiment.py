"""`Experiment`: the settings of one training session, with the paper's values as defaults."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from torchvision.models import list_models

from flowerlib.errors import UserError, brief
from flowerlib.files import is_text

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "bfloat16")
LONGEST_VALUE = 3000  # characters in a YAML file: Python refuses to print whole numbers of more than 4,300 digits
LONGEST_YAML = 100_000  # characters of all values, with aliases written out


def _setting(default: Any, *, low: float | None = None, high: float | None = None, above: float | None = None):
    """A field with its allowed range: ``low`` and ``high`` belong to it, ``above`` does not."""
    return field(default=default, metadata={"low": low, "high": high, "above": above})


@dataclass(frozen=True)
class Experiment:
    """One session's settings, checked when made.

    Photos and network:
        data: ``flowers``, ``synthetic``, or a folder of class folders.
        skip_bad: go on without photos that can't be read; run.json lists them.
        split_seed: draws the 80/20 split, apart from ``seed``: sessions stay comparable photo by photo.
        model: a torchvision classifier whose last layer is linear.
        weights: ``imagenet``, ``none``, a state_dict file, or a folder of ``<model>.pth``.
        freeze: train the head alone and leave the backbone, its batch norm included, as it is.
        image_size: side of the square network input, in pixels.

    Training (paper, section 3.2):
        seed: draws the new head, the order of the photos and their augmentation.
        epochs, batch_size, learning_rate, momentum: of SGD on the cross-entropy.
        lr_step, lr_factor: the learning rate is multiplied by ``lr_factor`` every ``lr_step`` epochs.
        device: ``auto`` takes CUDA, then Apple's GPU, then the CPU.
        precision: of the network's products; ``auto`` takes bfloat16 where the processor has it in hardware.
        repeats: evaluations of the last network on augmented validation photos, each augmented anew: how much
            the paper's protocol scatters by itself.

    Augmentation (paper, section 3.1); a zero leaves an operation out:
        random_crop: crop of random area and shape; without it the clean centre crop.
        flip: probability of a horizontal flip.
        rotation: largest angle, in degrees, to either side.
        brightness, contrast, saturation: largest relative change; a factor in [1 - x, 1 + x].
        hue: largest shift, as a fraction of the colour circle.
        translation: largest shift in x and in y, as a fraction of the image's side.

    Raises:
        UserError: a value has the wrong type or is out of range; the message says what is allowed.
    """

    data: str = "flowers"
    skip_bad: bool = False
    split_seed: int = _setting(0, low=0, high=2**32 - 1)
    model: str = "resnet18"
    weights: str = "imagenet"
    freeze: bool = False
    image_size: int = _setting(224, low=40, high=1024)

    seed: int = _setting(0, low=0, high=2**32 - 1)
    epochs: int = _setting(20, low=1)
    batch_size: int = _setting(32, low=2)
    learning_rate: float = _setting(0.001, above=0)
    momentum: float = _setting(0.9, low=0, high=1)
    lr_step: int = _setting(7, low=1)
    lr_factor: float = _setting(0.1, above=0, high=1)
    device: str = "auto"
    precision: str = "auto"
    repeats: int = _setting(20, low=0, high=1000)

    random_crop: bool = True
    flip: float = _setting(0.1, low=0, high=1)
    rotation: float = _setting(30.0, low=0, high=180)
    brightness: float = _setting(0.2, low=0, high=1)
    contrast: float = _setting(0.2, low=0, high=1)
    saturation: float = _setting(0.2, low=0, high=1)
    hue: float = _setting(0.1, low=0, high=0.5)
    translation: float = _setting(0.1, low=0, high=1)

    def __post_init__(self):
        for item in fields(self):
            # the one way round a frozen dataclass: 1 becomes 1.0 where a float is due
            object.__setattr__(self, item.name, _checked(item, getattr(self, item.name)))
        _check_choice("device", self.device, DEVICES)
        _check_choice("precision", self.precision, PRECISIONS)
        _check_choice("model", self.model, model_names())

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Experiment:
        """Make an Experiment from a mapping, naming the nearest setting where a key is unknown."""
        known = [item.name for item in fields(cls)]
        for key in settings:
            if key not in known:
                raise UserError(f"There is no setting '{brief(key)}'.{_did_you_mean(key, known)}")
        return cls(**settings)

    def settings(self) -> dict[str, Any]:
        """The settings as plain values, as run.json records them."""
        return asdict(self)

    def changes(self) -> dict[str, Any]:
        """The settings that differ from the paper's, as the session notebook receives them."""
        return {key: value for key, value in self.settings().items() if value != getattr(Experiment, key)}


def model_names() -> list[str]:
    """Names of torchvision's image classifiers, without its detection, segmentation and video models."""
    import torchvision

    return list_models(module=torchvision.models)


def read_experiments(path: Path, overrides: Mapping[str, Any] | None = None) -> dict[str, Experiment]:
    """Read an experiments.yaml: a mapping from a session's name to what differs from the paper.

    Besides settings, an entry may list ``seeds``: it then stands for a session a seed (see `seed_name`).

    Args:
        path: the YAML file.
        overrides: settings that replace those of every session (the command line's ``--set``); but a session whose
            entry says ``weights: none`` starts at random whatever weights the others are given.

    Raises:
        UserError: the file is missing or no such mapping, or a session's settings are wrong; it says where.
    """
    try:
        entries = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The experiments file {path} can't be read: {brief(error)}.") from error
    except ValueError as error:
        raise UserError(f"{path} is no valid YAML: {brief(error)}.") from error
    if not isinstance(entries, dict) or not entries:
        raise UserError(
            f"{path} must map session names to settings, for example 'resnet18-bs64: {{batch_size: 64}}'."
        )
    experiments = {}
    for name, entry in entries.items():
        experiments |= _read_entry(path, name, {} if entry is None else entry, overrides or {})
    return experiments


def seed_name(name: str, seed: int) -> str:
    """The name of a session that experiments.yaml asks for with several ``seeds``."""
    return f"{name}-seed{seed}"


def base_name(name: str, seed: int) -> str:
    """A session's name without the seed that `seed_name` gives it."""
    return name.removesuffix(seed_name("", seed))


def parse_override(text: str) -> tuple[str, Any]:
    """Read a ``KEY=VALUE`` of the command line; the value is read as in experiments.yaml."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set takes KEY=VALUE, for example --set epochs=2, not '{brief(text)}'.")
    try:
        return key.strip(), load_yaml(value)
    except ValueError as error:
        raise UserError(
            f"The value in --set {brief(text)} can't be read: write a number, a word, true or false."
        ) from error


def load_yaml(text: str) -> Any:
    """Read YAML of plain values: nothing in it can run code, or grow beyond `LONGEST_YAML`.

    Raises:
        ValueError: no valid YAML, too long, or a key stands twice in a mapping.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except Exception as error:  # PyYAML raises nearly anything on a value that doesn't fit its tag
        raise ValueError(brief(error)) from error


def _read_entry(path: Path, name: Any, entry: Any, overrides: Mapping[str, Any]) -> dict[str, Experiment]:
    """One session, or with ``seeds`` one for each seed."""
    # the name becomes a folder, a LaTeX label and a file name
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UserError(f"In {path}, {brief(repr(name))} is no session name: use letters, digits, '.', '_' and '-'.")
    if not isinstance(entry, dict):
        raise UserError(f"In {path}, session '{name}' must list settings as 'key: value', not {brief(repr(entry))}.")
    settings = {**entry, **overrides}
    if entry.get("weights") == "none":
        settings["weights"] = "none"
    seeds = settings.pop("seeds", None)
    try:
        if seeds is None or "seed" in overrides:
            return {name: Experiment.from_settings(settings)}
        if not isinstance(seeds, list) or not seeds or len(set(map(str, seeds))) < len(seeds) or "seed" in entry:
            raise UserError(
                f"seeds must list different whole numbers, as in 'seeds: [0, 1, 2]', not {brief(repr(seeds))}."
            )
        return {seed_name(name, seed): Experiment.from_settings({**settings, "seed": seed}) for seed in seeds}
    except UserError as error:
        raise UserError(f"In {path}, session '{name}': {error}") from error


def _checked(item, value: Any) -> Any:
    """The value of one field, of the right type and in range."""
    kind = item.type
    if kind == "float":
        value = _as_float(value)
    if type(value).__name__ != kind:
        raise UserError(f"{item.name} must be {_allowed(item)}, not {brief(repr(value))}.")
    low, high, above = (item.metadata.get(key) for key in ("low", "high", "above"))
    inside = (low is None or value >= low) and (high is None or value <= high) and (above is None or value > above)
    if not inside or value in (float("inf"), float("-inf"), "") or (kind == "str" and not is_text(value)):
        raise UserError(f"{item.name} must be {_allowed(item)}, not {brief(repr(value))}.")
    return value


def _as_float(value: Any) -> Any:
    # YAML 1.1 reads 1e-3, without a point, as text
    if isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            return value
    return value


def _allowed(item) -> str:
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a word or a path"}
    limits = {"low": "at least {}", "above": "above {}", "high": "at most {}"}
    said = [text.format(item.metadata[key]) for key, text in limits.items() if item.metadata.get(key) is not None]
    return " ".join([words[item.type], " and ".join(said)]).strip()


def _check_choice(key: str, value: str, choices: Iterable[str]) -> None:
    choices = list(choices)
    if value not in choices:
        some = (
            ", ".join(choices) if len(choices) < 10 else "a torchvision classifier, for example resnet18 or resnet34"
        )
        raise UserError(f"{key} must be one of {some}, not '{brief(value)}'.{_did_you_mean(value, choices)}")


def _did_you_mean(word: Any, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(word), list(known), n=1)
    return (
        f" Did you mean '{near[0]}'?" if near else f" There are: {', '.join(known)}." if len(list(known)) < 40 else ""
    )


class _StrictLoader(yaml.SafeLoader):
    """YAML's own reader lets a repeated key win in silence, and nine aliases of nine aliases .. fill the memory."""

    def __init__(self, stream: str):
        super().__init__(stream)
        self.length, self.lengths = 0, {}

    def compose_node(self, parent, index):
        begin, is_alias = self.length, self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        own = len(node.value) if isinstance(node, yaml.ScalarNode) else 0
        if is_alias:
            self.length += self.lengths.get(node, 0)  # 0: within itself
        else:
            self.length += own + 1
            self.lengths[node] = self.length - begin
        if own > LONGEST_VALUE or self.length > LONGEST_YAML:
            raise yaml.composer.ComposerError(None, None, "it holds too much", node.start_mark)
        return node

    def construct_mapping(self, node, deep=False):
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key_node, _ in node.value:
                if key_node.value in seen if isinstance(key_node, yaml.ScalarNode) else False:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"'{key_node.value}' stands there twice", key_node.start_mark
                    )
                if isinstance(key_node, yaml.ScalarNode):
                    seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)
