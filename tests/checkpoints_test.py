"""Checkpoints: whole or absent, the last three, corruption passed over."""

import errno
import io
import shutil

import numpy as np
import pytest

from reptile_tf.errors import InputError
from reptile_tf.records.checkpoints import Checkpoints
from reptile_tf.whole_files import beside


def save(checkpoints, *iterations):
    for i in iterations:
        checkpoints.save(i, {"phi/0": np.full((2, 3), i, np.float32),
                             "t": np.int64(i)},
                         {"sampler": {"state": 2**100 + i}, "note": "ä"})


def npy(array):
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def test_round_trip(tmp_path):
    checkpoints = Checkpoints(tmp_path / "new")
    assert checkpoints.load(print) is None
    save(checkpoints, 7)
    arrays, meta = checkpoints.load(print)
    np.testing.assert_array_equal(arrays["phi/0"], np.full((2, 3), 7))
    assert arrays["phi/0"].dtype == np.float32 and arrays["t"] == 7
    assert meta == {"sampler": {"state": 2**100 + 7}, "note": "ä"}


def test_the_last_three_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 5, 90, 1000, 20_000)
    assert checkpoints.iterations() == [90, 1000, 20_000]
    assert len([*tmp_path.iterdir()]) == 3


def test_files_of_other_names_are_the_users(tmp_path):
    """A copy beside them is neither gone on from nor removed."""
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    mine = [tmp_path / f"checkpoint-{name}.npz" for name in (
        "best", "000000001 2", "000000001-mine", "999")]
    for path in mine:
        shutil.copy(checkpoints.paths()[0], path)
    save(checkpoints, 2, 3, 1_000_000_000, 999_999_999)
    assert checkpoints.iterations() == [3, 999_999_999, 1_000_000_000]
    assert checkpoints.load(print)[0]["t"] == 1_000_000_000
    assert all(path.exists() for path in mine)


@pytest.mark.parametrize("damage", [
    lambda b: b[:len(b) // 2], lambda b: b"", lambda b: b"junk" * 50,
    lambda b: npy(np.zeros(3)),
    lambda b: b[:120] + bytes([b[120] ^ 1]) + b[121:]])
def test_a_corrupt_newest_one_is_passed_over_and_said(tmp_path, damage):
    checkpoints, said = Checkpoints(tmp_path), []
    save(checkpoints, 1, 2)
    newest = checkpoints.paths()[-1]
    # byte 120 is inside the first array's data: its checksum fails
    newest.write_bytes(damage(newest.read_bytes()))
    arrays, _ = checkpoints.load(said.append)
    assert arrays["t"] == 1
    assert len(said) == 1 and str(newest) in said[0] and "before" in said[0]
    assert newest.exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_one_that_cannot_be_read_now_may_be_whole(tmp_path, monkeypatch,
                                                  number):
    """Going on from an older one would lose, or evaluate other weights."""
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1, 2)

    def failing(*arguments, **more):
        raise OSError(number, "not now")
    monkeypatch.setattr(np, "load", failing)
    with pytest.raises(OSError, match="not now"):
        checkpoints.load(print)


def test_all_corrupt_is_an_error(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1, 2)
    for path in checkpoints.paths():
        path.write_bytes(b"")
    with pytest.raises(InputError, match="all 2 checkpoints"):
        checkpoints.load(lambda message: None)


def test_a_half_written_file_is_not_a_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1, 2)
    two = checkpoints.paths()[-1]
    two.rename(beside(two))  # As a process leaves it that is killed.
    assert checkpoints.iterations() == [1]
    assert checkpoints.load(pytest.fail)[0]["t"] == 1
    save(checkpoints, 3)  # Of another name.
    assert sorted(tmp_path.iterdir()) == checkpoints.paths()
