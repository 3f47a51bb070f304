"""`Experiment`: one training session's settings, the paper's values as defaults; and experiments.yaml."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from flowerlib.errors import UserError, one_line

RESERVED = ("seeds", "ablations", "duplicates.csv")  # what else lies beside the sessions in runs/<dataset>/

# torchvision's defaults for RandomResizedCrop, which the paper keeps: share of the area, and aspect ratio
CROP_AREA = (0.08, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)

# torchvision's pre-trained networks expect input that is standardized by these
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _read_number(value: Any) -> Any:
    # YAML 1.1 reads 1e-3, without a point, as text
    return float(value) if isinstance(value, str) else value


Text = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]  # can be printed anywhere
Number = Annotated[float, BeforeValidator(_read_number), Field(allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Probability = Annotated[Number, Field(ge=0, le=1)]


class Experiment(BaseModel):
    """One session's settings, checked when made.

    Photos and network:
        data: ``flowers``, ``synthetic``, or a folder of class folders.
        split_seed: draws the 80/20 split. It is not ``seed``, so that sessions can be compared photo by photo.
        model: a torchvision classifier whose last layer is linear, or ``efficientnet_lite0``.
        weights: ``imagenet``, ``none``, a state_dict file, or a folder with ``<model>.pth``.
        freeze: train the head only; the backbone, including its batch-norm statistics, stays as it is.
        image_size: side of the square network input, in pixels.

    Training (paper, section 3.2):
        seed: draws the new head, the order of the photos, their augmentation, and dropout.
        epochs, batch_size, learning_rate, momentum: for SGD on the cross-entropy.
        lr_step, lr_factor: the learning rate is multiplied by ``lr_factor`` every ``lr_step`` epochs.
        device: ``auto`` takes CUDA, then Apple's GPU, then the CPU.
        precision: dtype of the forward and backward pass; ``auto`` takes bfloat16 where the hardware has it.
        repeats: how often the last network is evaluated on freshly augmented validation photos, to measure how
            much the paper's protocol scatters by itself.

    Augmentation (paper, section 3.1); zero turns an operation off:
        random_crop: a crop of random area and aspect ratio; without it, the clean centre crop.
        flip: probability of a horizontal flip.
        rotation: largest angle to either side, in degrees.
        brightness, contrast, saturation: largest relative change; a factor in [1 - x, 1 + x].
        hue: largest shift, as a fraction of the colour circle.
        translation: largest shift in x and in y, as a fraction of the image's side.

    For photos of your own (not in the paper):
        skip_bad: leave out photos that can't be read instead of refusing them; run.json lists them.
        exclude: a file that lists photos to leave out, one path a line, such as ``rose/1.jpg``.
        cache: keep decoded photos on the disk; without it, they are decoded for every view.
        split: ``auto`` keeps the split of a folder with ``train`` and ``val``, and is ``random`` for others;
            ``stratified`` gives each side its share of every class; ``grouped`` keeps near-duplicates on one side.
        test: share of the photos that is set aside for a final test; best.pt is scored on it once, at the end.
        folds, fold: cross-validation; this session validates on part ``fold``, from 0, of ``folds``.
        class_weights: ``balanced`` weights the training loss so that every class counts the same.

    Raises:
        UserError: a setting is unknown, has the wrong type or is out of range; the message says what is allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    data: Text = "flowers"
    split_seed: Seed = 0
    model: Text = "resnet18"
    weights: Text = "imagenet"
    freeze: bool = False
    image_size: int = Field(224, ge=40, le=1024)

    seed: Seed = 0
    epochs: int = Field(20, ge=1)
    batch_size: int = Field(32, ge=2)
    learning_rate: Number = Field(0.001, gt=0)
    momentum: Probability = 0.9
    lr_step: int = Field(7, ge=1)
    lr_factor: Number = Field(0.1, gt=0, le=1)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    repeats: int = Field(20, ge=0, le=1000)

    random_crop: bool = True
    flip: Probability = 0.1
    rotation: Number = Field(30.0, ge=0, le=180)
    brightness: Probability = 0.2
    contrast: Probability = 0.2
    saturation: Probability = 0.2
    hue: Number = Field(0.1, ge=0, le=0.5)
    translation: Probability = 0.1

    skip_bad: bool = False
    exclude: Text | None = None
    cache: bool = True
    split: Literal["auto", "random", "stratified", "grouped"] = "auto"
    test: Number = Field(0.0, ge=0, le=0.5)
    folds: int | None = Field(None, ge=2, le=20)
    fold: int | None = Field(None, ge=0)
    class_weights: Literal["none", "balanced"] = "none"

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, settings: Any, validate: Any) -> Experiment:
        try:
            experiment = validate(settings)
        except ValidationError as error:
            raise UserError(" ".join(_in_words(each) for each in error.errors())) from error
        if (experiment.fold is None) != (experiment.folds is None) or (experiment.fold or 0) >= (
            experiment.folds or 1
        ):
            raise UserError(
                "fold and folds go together, and fold counts from 0: 'fold: 0' with 'folds: 5' is the first of five. "
                "In experiments.yaml, 'folds: 5' alone stands for a session for each."
            )
        if experiment.folds and experiment.test:
            raise UserError("folds and test can't be combined: with folds, every photo is tested once.")
        return experiment

    @classmethod
    def from_notebook(cls, variables: Mapping[str, Any]) -> Experiment:
        """Make an Experiment from a notebook's variables, ``globals()``, which must hold every setting.

        Raises:
            UserError: a setting is missing, perhaps because its name is misspelt; or a value is wrong.
        """
        for name in cls.model_fields:
            if name not in variables:
                own = [key for key in variables if not key.startswith("_")]
                raise UserError(f"The parameters lack the setting '{name}'.{did_you_mean(name, own, 'Is it')}")
        return cls(**{name: variables[name] for name in cls.model_fields})

    def changes(self) -> dict[str, Any]:
        """The settings that differ from the paper's."""
        return {name: value for name, value in self if value != Experiment.model_fields[name].default}


_ALLOWED = {  # by pydantic's name of the error
    "int_type": "a whole number",
    "float_type": "a number",
    "value_error": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a word or a path",
    "string_unicode": "a word or a path in UTF-8",
    "string_too_short": "a word or a path",
    "string_pattern_mismatch": "a word or a path, without control characters",
    "literal_error": "{expected}",
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "above {gt:g}",
    "less_than_equal": "at most {le:g}",
    "less_than": "below {lt:,}",
}


def _in_words(error: Mapping[str, Any]) -> str:
    """One of pydantic's errors as a sentence."""
    name = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"There is no setting '{one_line(name)}'.{did_you_mean(name, Experiment.model_fields)}"
    allowed = _ALLOWED[error["type"]].format(**error.get("ctx", {}))
    return f"{name} must be {allowed}, not {one_line(repr(error['input']))}."


def did_you_mean(word: str, known: Collection[str], question: str = "Did you mean") -> str:
    """`` Did you mean 'rotation'?``, or what there is, if that is little; else nothing."""
    if near := difflib.get_close_matches(word, known, n=1):
        return f" {question} '{near[0]}'?"
    return f" There are: {', '.join(known)}." if len(known) < 40 else ""


def read_experiments(path: Path, overrides: Mapping[str, Any] | None = None) -> dict[str, Experiment]:
    """Read an experiments.yaml: a mapping from a session's name to what differs from the paper.

    Besides settings, an entry may list ``seeds``, or give a number of ``folds``: it then stands for one session per
    seed or fold (see `seed_name`, `fold_name`).

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
        raise UserError(f"The experiments file {path} can't be read: {one_line(error)}.") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid YAML: {one_line(error)}.") from error
    if not isinstance(entries, dict) or not entries:
        raise UserError(
            f"{path} must map session names to settings, for example 'resnet18-bs64: {{batch_size: 64}}'."
        )
    experiments: dict[str, Experiment] = {}
    for name, entry in entries.items():
        sessions = _read_entry(path, name, {} if entry is None else entry, overrides or {})
        folders = {each.lower() for each in experiments}  # some systems don't tell A from a
        if taken := [each for each in sessions if each.lower() in folders]:
            raise UserError(
                f"In {path} rename one of the two sessions '{taken[0]}': their folders would be the same."
            )
        experiments |= sessions
    return experiments


def seed_name(name: str, seed: int) -> str:
    """The name of a session that experiments.yaml runs with several ``seeds``."""
    return f"{name}-seed{seed}"


def fold_name(name: str, fold: int) -> str:
    """The name of a session that experiments.yaml runs with ``folds``."""
    return f"{name}-fold{fold}"


def base_name(name: str, experiment: Experiment) -> str:
    """A session's name without the seed or fold that `seed_name` or `fold_name` adds to it."""
    if experiment.fold is not None:
        return name.removesuffix(fold_name("", experiment.fold))
    return name.removesuffix(seed_name("", experiment.seed))


def parse_override(text: str) -> tuple[str, Any]:
    """Read a ``KEY=VALUE`` from the command line; the value is read as in experiments.yaml."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set takes KEY=VALUE, for example --set epochs=2, not '{one_line(text)}'.")
    try:
        return key.strip(), load_yaml(value)
    except ValueError as error:
        raise UserError(
            f"The value in --set {one_line(text)} can't be read: write a number, a word, true or false."
        ) from error


def load_yaml(text: str) -> Any:
    """Read YAML of plain values; nothing in it can run code.

    Raises:
        ValueError: it is not valid, or has a key twice in a mapping.
    """
    try:
        return yaml.load(text, Loader=_UniqueKeys)
    except Exception as error:  # PyYAML raises nearly anything on a value that doesn't fit its tag
        raise ValueError(one_line(error)) from error


class _UniqueKeys(yaml.SafeLoader):
    """YAML's own reader lets the last of two equal keys win: a session copied and not renamed would vanish."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        times = Counter(key.value for key in keys)
        if repeated := [key for key in keys if times[key.value] > 1]:
            raise yaml.constructor.ConstructorError(
                None, None, f"'{one_line(repeated[-1].value)}' stands there twice", repeated[-1].start_mark
            )
        return super().construct_mapping(node, deep=deep)


def _read_entry(path: Path, name: Any, entry: Any, overrides: Mapping[str, Any]) -> dict[str, Experiment]:
    """One session, or with ``seeds`` one for each seed."""
    # the name becomes a folder, a LaTeX label and a file name
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UserError(
            f"In {path}, {one_line(repr(name))} is not a session name: use letters, digits, '.', '_' and '-'."
        )
    if name.lower() in RESERVED:
        raise UserError(f"In {path} rename the session '{name}': other files among the runs have that name.")
    if not isinstance(entry, dict) or not all(isinstance(key, str) for key in entry):
        raise UserError(
            f"In {path}, session '{name}' must list settings as 'key: value', not {one_line(repr(entry))}."
        )
    settings = {**entry, **overrides}
    if entry.get("weights") == "none":
        settings["weights"] = "none"
    seeds = settings.pop("seeds", None)
    folds = settings.get("folds") if "fold" not in settings else None
    try:
        if seeds is not None and "seed" not in overrides:
            if not isinstance(seeds, list) or not seeds or len(set(map(str, seeds))) < len(seeds):
                raise UserError(
                    f"seeds must list different whole numbers, as in 'seeds: [0, 1, 2]', not {one_line(repr(seeds))}."
                )
            if "seeds" in entry and "seed" in entry:
                raise UserError("give seed or seeds, not both.")
            if folds is not None:
                raise UserError("give seeds or folds, not both.")
            return {seed_name(name, seed): Experiment(**{**settings, "seed": seed}) for seed in seeds}
        if folds is not None:
            first = Experiment(**settings, fold=0)
            return {fold_name(name, fold): first.model_copy(update={"fold": fold}) for fold in range(first.folds)}
        return {name: Experiment(**settings)}
    except UserError as error:
        raise UserError(f"In {path}, session '{name}': {error}") from error
