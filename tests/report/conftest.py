"""Fixtures of the report's tests."""

import pytest

from flowerlib.report import curves


@pytest.fixture(autouse=True, scope="module")
def _fewer_simulated_curves(request):
    """A tenth of the simulated curves, but where the committed runs' own numbers are checked."""
    with pytest.MonkeyPatch.context() as patch:
        if "test_reference" not in request.node.name:
            patch.setattr(curves, "CURVES", 1000)
        yield
