"""The temperature of a network's logits, and when an answer is unsure."""

import numpy as np
import pytest

from flowerlib.calibration import calibrate, softmax


def drawn(scale, photos=4000):
    """Logits, and labels drawn from the very probabilities that the logits have after division by ``scale``."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (photos, 5))
    labels = np.array([random.choice(5, p=row) for row in softmax(logits)])
    return (scale * logits).astype(np.float32), labels


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_temperature_that_logits_were_scaled_by_is_found_again(scale):
    logits, labels = drawn(scale)
    found = calibrate(logits, labels)
    assert found.temperature == pytest.approx(scale, rel=0.05)
    assert found.error_after < 0.03
    if scale != 1:
        assert found.error_before > 0.1


def test_all_but_a_hundredth_of_the_right_answers_are_sure():
    logits, labels = drawn(1.0)
    found = calibrate(logits, labels)
    probabilities = softmax(logits, found.temperature)
    right = probabilities.argmax(axis=1) == labels
    assert 0.99 <= (probabilities.max(axis=1)[right] >= found.unsure_below).mean() < 0.992


def test_few_photos_that_are_all_right_make_no_network_certain():
    labels = np.arange(10) % 3
    found = calibrate(4 * np.eye(3)[labels], labels)
    assert found.unsure_below < 0.98
    nonsense = calibrate(4 * np.eye(3)[labels], (labels + 1) % 3)
    assert (nonsense.temperature > 100, nonsense.unsure_below) == (True, 0)
