"""Numbers and names as the report prints them: .932, 2,848, 95 %, −.035 [−.056, −.014], ResNet-18.

Short phrases only: the sentences stand in report.ipynb.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from flowerlib.report.display import escaped
from flowerlib.report.grouping import Session
from flowerlib.runs import RunInfo

MISSING = "–"
MINUS = "−"
IMAGENET_WEIGHTS = "ImageNet weights"

_WORDS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NETWORKS = {"resnet": "ResNet-", "efficientnet_lite": "EfficientNet-Lite", "densenet": "DenseNet-", "vgg": "VGG-"}


def decimal(value: float, places: int = 3, signed: bool = False) -> str:
    """A number below one without its zero, ``.932``; ``+.019`` and ``−.035`` if ``signed``; a dash for none."""
    if math.isnan(value):
        return MISSING
    text = f"{abs(value):.{places}f}"
    text = text.removeprefix("0") if places else text
    sign = MINUS if value < 0 and text.strip(".0") else "+" if signed else ""
    return sign + text


def interval(value: float, low: float, high: float, places: int = 3, signed: bool = False) -> str:
    """``−.035 [−.056, −.014]``."""
    if math.isnan(value):
        return MISSING
    return f"{decimal(value, places, signed)} [{decimal(low, places)}, {decimal(high, places)}]"


def p_text(p: float) -> str:
    """``.0017``, ``.035``, ``.74``: a p-value to two digits; ``< .001``; a dash for none."""
    if math.isnan(p):
        return MISSING
    return "< .001" if p < 0.001 else decimal(p, 2 + (p < 0.0995) + (p < 0.00995))


def whole(value: float) -> str:
    """``2,848``; a dash for none."""
    return MISSING if math.isnan(value) else f"{value:,.0f}".replace("-", MINUS)


def in_words(number: int) -> str:
    """Up to twelve in words, then in digits."""
    return _WORDS[number] if 0 <= number < len(_WORDS) else whole(number)


def count(number: int, noun: str, plural: str = "") -> str:
    """``three sessions``, ``one photo``, ``2,848 photos``."""
    return f"{in_words(number) if number else 'no'} {noun if number == 1 else plural or noun + 's'}"


def listing(items: Sequence[str]) -> str:
    """``a, b and c``."""
    *others, last = items or [MISSING]
    return f"{', '.join(others)} and {last}" if others else last


def network(model: str) -> str:
    """``ResNet-18`` for ``resnet18``; another name as it is."""
    for prefix, name in _NETWORKS.items():
        if model.startswith(prefix) and model.removeprefix(prefix)[:1].isdigit():
            return name + model.removeprefix(prefix)
    return escaped(model)


def label(session: Session, sessions: Sequence[Session]) -> str:
    """A session's name for readers: its network, with the batch size where another one of ``sessions`` has the same.

    Where that does not tell it from all others, its name in experiments.yaml.
    """

    def described(each: Session) -> str:
        settings = each.info.settings
        models = [other.info.settings.model for other in sessions]
        batch = f" (batch size {settings.batch_size})" if models.count(settings.model) > 1 else ""
        return network(settings.model) + batch

    names = [described(each) for each in sessions]
    own = described(session)
    return own if names.count(own) == 1 else escaped(session.name)


def unless_missing(value: float, sentence: str) -> str:
    """``sentence`` with a number in its braces; nothing where there is no number."""
    return "" if math.isnan(value) else sentence.format(decimal(value))


def over_seeds(session: Session) -> str:
    """What a caption adds where a session has several seeds."""
    seeds = listing([str(seed) for seed in session.seeds])
    return f"; means ± standard deviations over the seeds {seeds}" if len(session.seeds) > 1 else ""


def start(info: RunInfo) -> str:
    """What a network starts from."""
    weights = info.weights
    if weights.source == "imagenet":
        return IMAGENET_WEIGHTS
    if weights.source == "none":
        return "random weights"
    return (
        f"weights trained on {escaped(weights.trained_on)}"
        if weights.trained_on
        else f"weights from {escaped(weights.file)}"
    )
