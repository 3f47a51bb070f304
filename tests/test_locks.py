"""Where files can't be locked, or another process holds the lock."""

import pytest

from flowerlib import files
from flowerlib.data.cache import new_cache
from flowerlib.errors import UserError
from flowerlib.files import locked


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), NotImplementedError("no flock here")])
def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, error):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(files.FileLock, "acquire", refuse)
    with pytest.raises(UserError, match=r"can't be locked .*another disk"), locked(tmp_path / "lock", tmp_path):
        pass


def test_the_cache_waits_for_another_process_and_not_for_ever(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWERLIB_CACHE", str(tmp_path))
    monkeypatch.setattr("flowerlib.data.cache.DECODING_SECONDS", 0)
    with new_cache("a", 800, 0) as writer:
        assert writer is not None
        with pytest.raises(UserError, match="Another process is at work"), new_cache("a", 800, 0):
            pass
