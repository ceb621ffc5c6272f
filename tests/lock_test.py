"""Two processes in one folder, without TensorFlow."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from reptile_tf.errors import InputError
from reptile_tf.records import lock
from reptile_tf.records.lock import Lock

ROOT = Path(__file__).parent.parent
HOLD = """
import sys
import time
from pathlib import Path
from reptile_tf.records.lock import Lock
Lock(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_link_in_its_place_is_not_written_over(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "in-use").symlink_to(tmp_path / "precious")
    with pytest.raises(InputError, match="in-use is a link.*remove it"):
        Lock(tmp_path / "in-use").acquire()
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_second_process_is_told_who_is_there_and_not_of_a_killed_one(
        tmp_path):
    path = tmp_path / "in-use"
    with subprocess.Popen([sys.executable, "-c", HOLD, path], cwd=ROOT,
                          text=True, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(InputError) as error:
            Lock(path).acquire()
        assert f"process {first.pid} on {socket.gethostname()}" in (
            str(error.value))
        first.send_signal(signal.SIGKILL)
    assert path.exists()  # Left behind.
    mine = Lock(path)
    mine.acquire()
    assert json.loads(path.read_text())["pid"] == os.getpid()
    with pytest.raises(InputError, match=f"process {os.getpid()} "):
        Lock(path).acquire()
    mine.release()
    assert not path.exists()
    mine.acquire()
    mine.release()


def test_another_hosts_file_counts_while_it_is_touched(tmp_path):
    path = tmp_path / "in-use"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 7}))
    with pytest.raises(InputError, match="process 7 on elsewhere"):
        Lock(path).acquire()
    assert json.loads(path.read_text())["pid"] == 7
    old = path.stat().st_mtime - lock.STALE_SECONDS - 1
    os.utime(path, (old, old))
    mine = Lock(path)
    mine.acquire()
    assert json.loads(path.read_text())["host"] == socket.gethostname()
    mine.release()


def test_the_holder_shows_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.01)
    mine = Lock(tmp_path / "in-use")
    mine.acquire()
    os.utime(mine.path, (1, 1))
    deadline = 500
    while mine.path.stat().st_mtime == 1 and deadline:
        deadline -= 1
        time.sleep(0.01)
    assert mine.path.stat().st_mtime > 1
    mine.release()


def test_one_that_was_suspended_leaves_another_hosts_claim_alone(
        tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.01)
    mine = Lock(tmp_path / "in-use")
    mine.require()  # Held by nobody.
    mine.acquire()
    mine.require()
    mine.path.write_text(json.dumps({"host": "elsewhere", "pid": 7}))
    time.sleep(0.1)  # A sign of life may be on its way.
    os.utime(mine.path, (1, 1))
    with pytest.raises(InputError, match="in use by process 7 on elsewhere"):
        mine.require()
    time.sleep(0.1)
    mine.release()
    assert mine.path.stat().st_mtime == 1


def test_a_disk_that_is_away_at_the_end_undoes_no_run(tmp_path, monkeypatch):
    mine = Lock(tmp_path / "in-use")
    mine.acquire()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", Mock(side_effect=OSError(5, "gone")))
        with patch.context() as more:
            more.setattr(lock, "_content", Mock(side_effect=OSError(5, "")))
            mine.require()
        mine.release()
    Lock(mine.path).acquire()


def test_a_claim_that_is_gone_ends_the_run(tmp_path):
    """As where another host had the folder, and is done."""
    mine = Lock(tmp_path / "run" / "in-use")
    mine.path.parent.mkdir()
    mine.acquire()
    mine.path.unlink()
    with pytest.raises(InputError, match="in-use is gone: another process"):
        mine.require()
    mine.path.parent.rename(tmp_path / "elsewhere")
    mine.require()  # With its disk, perhaps.
    mine.release()


def test_on_a_disk_without_locks_a_process_that_runs_counts(
        tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(38, "Function not implemented")
    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    mine, others = (Lock(tmp_path / "in-use") for _ in range(2))
    mine.acquire()
    with pytest.raises(InputError, match=f"process {os.getpid()} "):
        others.acquire()
    assert json.loads(mine.path.read_text())["pid"] == os.getpid()
    mine.release()
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    holder = {"host": socket.gethostname(), "machine": lock._machine(),
              "pid": gone.pid}
    others.path.write_text(json.dumps(holder))
    others.acquire()
    others.release()


def test_a_machine_is_known_by_its_start_and_not_by_its_name(tmp_path):
    """Containers of one machine have names of their own, two machines one."""
    path = tmp_path / "in-use"
    path.write_text(json.dumps({"host": "0f3c2a91be77", "pid": 1,
                                "machine": lock._machine()}))
    mine = Lock(path)
    mine.acquire()
    mine.release()
    path.write_text(json.dumps({"host": socket.gethostname(), "pid": 1,
                                "machine": "another"}))
    with pytest.raises(InputError, match="process 1 on "):
        mine.acquire()


def test_without_locks_of_files_runs_say_what_they_need(
        tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    with pytest.raises(InputError, match="on Windows use WSL2"):
        Lock(tmp_path / "in-use").acquire()
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("content", ["", "{", "[]", "7"])
def test_a_file_that_is_not_whole_does_not_count(tmp_path, content):
    (tmp_path / "in-use").write_text(content)
    mine = Lock(tmp_path / "in-use")
    mine.acquire()
    mine.release()
