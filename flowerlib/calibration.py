"""Probabilities that can be believed: the temperature of a network's logits, and the calibration error."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar

from flowerlib.runs import CalibrationInfo

BINS = 15  # of the calibration error, as in Guo et al. (2017)
SURE_SHARE = 0.99  # of the right answers, which are not called unsure
LOG_TEMPERATURES = (-5, 5)  # the upper one leaves nothing but chance: the network knows nothing


def calibrate(logits: np.ndarray, labels: np.ndarray) -> CalibrationInfo:
    """Fit the temperature that calibrates a network, and where its answers become unsure.

    One number divides all logits, so that the mean cross-entropy is least (Guo et al., "On Calibration of Modern
    Neural Networks", 2017). It is told that one more photo than there are was a guess: otherwise a network that
    has all photos right would be told to be sure of everything (Platt, "Probabilistic Outputs for Support Vector
    Machines", 1999).

    Args:
        logits: (n, classes), of photos that the network was not trained on.
        labels: (n,) class indices.
    """
    photos, classes = logits.shape
    targets = (photos * np.eye(classes)[labels] + 1 / classes) / (photos + 1)

    def cross_entropy(log_temperature: float) -> float:
        return -(targets * np.log(softmax(logits, np.exp(log_temperature)) + 1e-300)).sum()

    temperature = float(np.exp(minimize_scalar(cross_entropy, bounds=LOG_TEMPERATURES, method="bounded").x))
    right = logits.argmax(axis=1) == labels
    before, after = (softmax(logits, each).max(axis=1) for each in (1.0, temperature))
    least = np.quantile(after[right], 1 - SURE_SHARE, method="lower") if right.any() else 0.0
    return CalibrationInfo(
        temperature=temperature,
        unsure_below=float(least),
        error_before=calibration_error(before, right),
        error_after=calibration_error(after, right),
    )


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities of logits (n, classes): float64, rows summing to 1."""
    scaled = logits.astype(np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """The expected calibration error: the mean over photos of |accuracy - mean confidence| in a photo's bin."""
    gaps = np.bincount(bin_of(confidence, BINS), weights=confidence - correct)
    return float(np.abs(gaps).sum() / len(confidence))


def bin_of(confidence: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each confidence: the m-th, from 1, holds those in ((m - 1) / bins, m / bins]; counted from 0."""
    return np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
