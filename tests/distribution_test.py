"""Replicas on two devices of one process, and in two processes.

The oracle is one process that runs the whole meta-batch. Sums of displacements
are taken in another order there: weights agree to CLOSE. Biases before batch
normalization are left out: their true gradient is zero, and Adam makes steps
of their rounding.
"""

import json
import shutil
import signal
import socket
import time
from contextlib import contextmanager

import numpy as np
import pytest
import tiny
from forks import ROOT, Fork
from processes import newest, wait_for

from reptile_tf.configuration.config import Config
from reptile_tf.errors import InputError
from reptile_tf.execution.cluster import Cluster, cluster_of
from reptile_tf.execution.replicas import Replicas
from reptile_tf.learning.learner import Learner
from reptile_tf.learning.meta_config import MetaConfig
from reptile_tf.learning.meta_training import MetaTrainer
from reptile_tf.records.checkpoints import Checkpoints
from reptile_tf.runs import command_line as experiment

CLOSE = 2e-5
BIAS = "phi/1", "v/1"
FLAGS = ["--meta_batch=4", "--meta_iters=200", "--eval_interval=25",
         "--shots=1", "--eval_samples=20", "--noexport"]
TWO = '{"cluster": {"worker": ["a:1", "b:2"]}, "task": '


def arrays_of(run):
    return Checkpoints(run / "checkpoints").load(print)[0]


def assert_close(run, other):
    a, b = arrays_of(run), arrays_of(other)
    assert a.keys() == b.keys() and a["v/0"].shape[0] == 4
    for name in a.keys() - set(BIAS):
        np.testing.assert_allclose(a[name], b[name], rtol=0, atol=CLOSE,
                                   err_msg=name)


def script(*words, **environment):
    return Fork(*words, PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}", **environment)


def bound():
    """A socket that has a port, and its address."""
    found = socket.socket()
    found.bind(("127.0.0.1", 0))
    return found, f"127.0.0.1:{found.getsockname()[1]}"


def free_addresses():
    """Two, which another process may take before they are used."""
    (one, first), (two, second) = bound(), bound()
    with one, two:
        return first, second


@contextmanager
def workers(run, *flags, scripts=(ROOT / "tests" / "tiny.py",) * 2,
            own=((), ())):
    """Two workers, the chief first, ended in any case."""
    started = []

    def start():
        addresses = free_addresses()
        for i, (path, more) in enumerate(zip(scripts, own, strict=True)):
            started.append(script(
                path, f"--run_dir={run}", "--distribution=multi_worker",
                *flags, *more, TF_CONFIG=json.dumps({
                    "cluster": {"worker": addresses},
                    "task": {"type": "worker", "index": i}})))
        return started[-2:]

    try:
        pair = start()
        if a_port_was_taken(pair):
            stop(pair)
            pair = start()
        yield pair
    finally:
        stop(started)


def a_port_was_taken(pair):
    """Waits until the two have found one another, or one says so or ends."""
    deadline = time.monotonic() + 1800
    while time.monotonic() < deadline:
        ended = any(process.poll() is not None for process in pair)
        said = [process.output() for process in pair]
        if any("name free ports" in text for text in said):
            return True
        if ended or all("multi_worker, 2 replicas" in text for text in said):
            return False
        time.sleep(0.01)
    return False


def stop(processes):
    for process in processes:
        process.kill()
        process.wait()


def end(process, status):
    """What it printed; it must end with this status, and no traceback."""
    ended, output = process.wait(), process.output()
    assert ended == status, output
    assert "Traceback" not in output, output
    return output


def finish(run, *flags):
    with workers(run, *flags) as pair:
        ended = [process.wait() for process in pair]
        said = [process.output() for process in pair]
    said = "\n".join(said)
    assert ended == [0, 0] and "Traceback" not in said, said
    assert "retracing" not in said, said


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The run of two workers, and that of one process."""
    folder = tmp_path_factory.mktemp("runs")
    finish(folder / "two", *FLAGS)
    assert experiment.main(
        tiny, ["tiny.py", f"--run_dir={folder / 'one'}", *FLAGS]) == 0
    return folder / "two", folder / "one"


def test_workers_that_start_unlike_are_told_in_what():
    class Three(Replicas):
        def gather(self, values):
            [own] = values
            return [np.stack([own, own + [0, change, 0, 0], own])]

    values = {"their data": 7, "their flags": 40, "their code": 2**40,
              "their weights": 40}
    change = 0
    Three().require_equal(values)
    change = 2
    with pytest.raises(InputError, match=(
            r"the workers differ in their flags \(40, 42, 40\): start all")):
        Three().require_equal(values)


def test_two_workers_train_as_one_process(runs):
    assert_close(*runs)
    two, one = (json.loads((r / "result.json").read_text()) for r in runs)
    assert two["replicas"] == 2 and one["replicas"] == 1
    # The workers share the tasks of an evaluation, and each is counted once.
    assert two["untrained"] == one["untrained"]
    assert [r["tasks"] for r in two["results"]] == [20] * 4
    assert {p.name for p in runs[0].iterdir()} == {
        "flags.cfg", "metrics.csv", "result.json", "run.log", "checkpoints",
        "tensorboard"}
    for name in ("flags.cfg", "metrics.csv"):
        assert len((runs[0] / name).read_text().splitlines()) == len(
            (runs[1] / name).read_text().splitlines())


@pytest.mark.slow
def test_workers_whose_port_is_taken_say_so_and_start_with_others(
        tmp_path, monkeypatch):
    taken, address = bound()
    given = [(free_addresses()[0], address), free_addresses()]
    monkeypatch.setitem(globals(), "free_addresses", lambda: given.pop(0))
    with taken:
        taken.listen()
        finish(tmp_path / "run", *FLAGS, "--meta_iters=0")
    assert given == [] and (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize("flags, another, status, written", [
    (["--meta_iters=1"], 0, 0, "result.json"),
    ([], signal.SIGTERM, 143, "checkpoint-000000000.npz"),
    (["--inner_optimizer=sgd", "--learning_rate=1e18", "--meta_step=1e3"],
     0, 1, "checkpoint-000000000.npz")])
def test_a_run_parts_at_each_of_its_ends(
        tmp_path, monkeypatch, flags, another, status, written):
    class One(Replicas):
        parted, seen = 0, set()

        def maximum(self, own, *wish):
            One.seen = {p.name for p in tmp_path.glob("**/*")}
            return [another if wish and another else own, *wish]

        def part(self):
            One.parted += 1

    monkeypatch.setattr("reptile_tf.runs.run.replicas_of",
                        lambda *_: One())
    words = ["tiny.py", f"--run_dir={tmp_path}", *FLAGS, *flags]
    for times in 1, 2:  # Once more where it has ended already.
        assert experiment.main(tiny, words) == status
        assert One.parted == times
        assert written in One.seen  # Before the others may say so.


def test_a_result_that_not_all_workers_see_is_evaluated_again(
        tmp_path, monkeypatch, capsys):
    class Blind(Replicas):
        def maximum(self, *values):
            return [1, *values[1:]] if values[2:] else [*values]

    words = ["tiny.py", f"--run_dir={tmp_path}", *FLAGS, "--meta_iters=1"]
    assert experiment.main(tiny, words) == 0
    before = json.loads((tmp_path / "result.json").read_text())
    monkeypatch.setattr("reptile_tf.runs.run.replicas_of", lambda *_: Blind())
    assert experiment.main(tiny, words) == 0
    assert "already finished" not in capsys.readouterr().out
    after = json.loads((tmp_path / "result.json").read_text())
    assert after["results"] == before["results"]
    # Never trained anew beside it.
    shutil.rmtree(tmp_path / "checkpoints")
    metrics = (tmp_path / "metrics.csv").read_bytes()
    assert experiment.main(tiny, words) == 1
    assert "not all workers see" in capsys.readouterr().err
    assert (tmp_path / "metrics.csv").read_bytes() == metrics


def test_workers_that_start_unlike_part_before_they_say_so():
    class Two(Replicas):
        parted = False

        def gather(self, values):
            [own] = values
            return [np.stack([own, own + 1])]

        def part(self):
            self.parted = True

    two = Two()
    with pytest.raises(InputError, match=r"their flags \(7, 8\)"):
        two.require_equal({"their flags": 7})
    assert two.parted


PART = """
import time
from pathlib import Path
from reptile_tf import quiet_tensorflow
from reptile_tf.execution.strategies import replicas_of
replicas = replicas_of("multi_worker", print)
replicas.maximum(0)
print("parting", flush=True)
go = Path(__file__).with_name("go")
while replicas.cluster.index and not go.exists():
    time.sleep(0.01)
replicas.part()
"""


@pytest.mark.slow
@pytest.mark.parametrize("lost", [False, True])
def test_no_worker_ends_before_the_others_may(tmp_path, lost):
    """As its answer to the last exchange could be lost with it."""
    part = tmp_path / "part.py"
    part.write_text(PART)
    with workers(tmp_path, scripts=(part,) * 2) as (one, other):
        for process in one, other:
            wait_for(process, lambda p=process: "parting" in p.output())
        time.sleep(3)
        assert one.poll() is None
        if lost:
            other.kill()
        else:
            (tmp_path / "go").touch()
            end(other, 0)
        end(one, 0)


@pytest.mark.slow
def test_a_killed_worker_and_another_number_of_workers(
        runs, tmp_path, capsys):
    run = tmp_path / "run"
    with workers(run, *FLAGS) as (chief, other):
        wait_for(chief, lambda: newest(run) >= 50)
        other.kill()
        last = end(chief, 1).splitlines()[-1]
    assert last.startswith("error: worker 1 has ended"), last
    assert "Graph execution error" not in last, last
    assert "that divides --meta_batch" in last
    assert f"the checkpoint of meta-iteration {newest(run)} in" in last
    assert newest(run) < 200 and not (run / "result.json").exists()
    assert experiment.main(tiny, ["tiny.py", f"--run_dir={run}", *FLAGS]) == 0
    output = capsys.readouterr().out
    assert "going on from meta-iteration" in output
    assert "warning: replicas was 2, now 1" in output
    assert_close(run, runs[1])


@pytest.mark.slow
def test_ctrl_c_ends_a_list_that_waits_for_its_workers(tmp_path):
    one = script(
        ROOT / "tests" / "tiny.py", f"--run_dir={tmp_path}", "--seed=0,1",
        "--distribution=multi_worker", *FLAGS, TF_CONFIG=json.dumps({
            "cluster": {"worker": free_addresses()},
            "task": {"type": "worker", "index": 0}}))
    try:
        wait_for(one, lambda: "waiting for" in one.output())
        deadline = time.monotonic() + 60
        while one.poll() is None and time.monotonic() < deadline:
            one.send_signal(signal.SIGINT)
            time.sleep(0.5)
        assert one.poll() in (-signal.SIGINT, 130), one.output()
    finally:
        stop([one])


@pytest.mark.slow
def test_a_signal_to_one_worker_stops_all(runs, tmp_path):
    run = tmp_path / "run"
    for stopped, number, status in ((1, signal.SIGTERM, 143),
                                    (0, signal.SIGINT, 130)):
        before = newest(run)
        with workers(run, *FLAGS) as pair:
            wait_for(pair[0], lambda b=before: newest(run) >= b + 25)
            pair[stopped].send_signal(number)
            for process in pair:
                assert "goes on from here" in end(process, status)
    assert newest(run) < 200
    finish(run, *FLAGS)
    a, b = arrays_of(run), arrays_of(runs[0])
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    assert (run / "metrics.csv").read_bytes() == (
        runs[0] / "metrics.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("flags, own, chiefs, others", [
    # The chief alone looks at the folder; the other must not wait for ever.
    (["--pretrained"], [[], []], "train first", "worker 0 has ended"),
    ([], [[], ["--eval_samples=21"]], "checksum of their flags",
     "checksum of their flags"),
    (["--inner_optimizer=sgd", "--learning_rate=1e18", "--meta_step=1e3"],
     [[], []], "NaN or infinity", "NaN or infinity"),
    (["--meta_batch=3"], [[], []], "multiple of 2", "multiple of 2")])
def test_errors_end_both_workers(tmp_path, flags, own, chiefs, others):
    with workers(tmp_path / "run", *FLAGS, *flags, own=own) as pair:
        for process, words in zip(pair, (chiefs, others), strict=True):
            last = end(process, 1).splitlines()[-1]
            assert last.startswith("error: ") and words in last


@pytest.mark.slow
def test_two_workers_fit_sine_waves(tmp_path):
    """Many meta-iterations a call, XLA in each worker, and one figure."""
    flags = ["--meta_batch=2", "--meta_iters=450", "--eval_samples=20",
             "--eval_interval=0", "--eval_interval_samples=20"]
    sine = (ROOT / "run_sine.py",) * 2
    with workers(tmp_path / "two", *flags, scripts=sine) as pair:
        said = [end(process, 0) for process in pair]
    assert ["figure: " in output for output in said] == [True, False]
    end(script(*sine[:1], f"--run_dir={tmp_path / 'one'}", *flags), 0)
    two, one = arrays_of(tmp_path / "two"), arrays_of(tmp_path / "one")
    for name in two:
        np.testing.assert_allclose(two[name], one[name], rtol=0, atol=CLOSE)


TWO_DEVICES = """
import sys
from reptile_tf import quiet_tensorflow
import keras
import numpy as np
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2)
import tiny
from reptile_tf import Batches, Learner, MetaConfig
from reptile_tf.execution.strategies import replicas_of
from reptile_tf.runs import command_line as experiment
from reptile_tf.learning.meta_training import MetaTrainer
from reptile_tf.learning.non_finite import NonFiniteError
from reptile_tf.execution import engine
engine.CPU_TASKS_PER_CALL = 2
for jit in "off", "on":
    assert experiment.main(tiny, [
        "tiny.py", f"--run_dir={sys.argv[1]}/{jit}", f"--jit_compile={jit}",
        "--distribution=mirrored", *sys.argv[2:]]) == 0

# g^2 = infinity in the last task alone, whose step g / sqrt(v) is 0.
x = np.ones([2, 1, 5, 4, 3, 1], np.float32)
x[1] = 1e25
model = keras.Sequential([
    keras.Input([4, 3, 1]), keras.layers.Flatten(), keras.layers.Dense(3)])
trainer = MetaTrainer(Learner(model), MetaConfig(meta_batch=2),
                      replicas=replicas_of("mirrored", print))
y = np.array([[[0, 1, 2, 0, 1]]] * 2)  # Not all are right at first.
try:
    trainer.train_step(Batches.from_steps(x, y))
except NonFiniteError:
    assert all(np.isfinite(w).all() for w in trainer.weights)
    print("v was found spoilt")
"""


@pytest.mark.slow
def test_two_devices_train_as_one(runs, tmp_path):
    output = end(script("-c", TWO_DEVICES, tmp_path, *FLAGS), 0)
    assert "mirrored, 2 replicas" in output
    assert "v was found spoilt" in output
    for jit in ("off", "on"):
        assert_close(tmp_path / jit, runs[1])


def test_each_process_has_its_own_slots_of_v(rng):
    def trainer(index):
        return MetaTrainer(
            Learner(tiny.build_model(3, 0)), MetaConfig(meta_batch=4),
            replicas=Replicas(Cluster(("a:1", "b:2"), index)))

    arrays = MetaTrainer(Learner(tiny.build_model(3, 0)),
                         MetaConfig(meta_batch=4)).state_dict()
    arrays = {k: rng.random(v.shape).astype(v.dtype)
              for k, v in arrays.items()}
    for index, rows in ((0, slice(0, 2)), (1, slice(2, 4))):
        one = trainer(index)
        one.load_state_dict(arrays)
        for i, v in enumerate(one.slots.v):
            np.testing.assert_array_equal(v, arrays[f"v/{i}"][rows])
    assert Replicas(Cluster(("a:1", "b:2"), 1)).own(
        np.arange(12).reshape(2, 6), 1).tolist() == [[3, 4, 5], [9, 10, 11]]


def test_the_cluster_of_tf_config(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", TWO + '{"type": "worker", "index": 1}}')
    assert cluster_of("none") == cluster_of("mirrored") == Cluster()
    found = cluster_of("multi_worker")
    assert found == Cluster(("a:1", "b:2"), 1) and not found.chief
    jobs = '{"cluster": {"worker": ["b:2", "c:3"], "chief": ["a:1"]}, "task": '
    for task, index in (('{"type": "chief", "index": 0}}', 0),
                        ('{"type": "worker", "index": "0"}}', 1)):
        monkeypatch.setenv("TF_CONFIG", jobs + task)
        assert cluster_of("multi_worker") == Cluster(
            ("a:1", "b:2", "c:3"), index)


@pytest.mark.parametrize("text", [
    None, "", "worker 0", "[]", "3", '{"task": {"type": "worker", "index": 0}}',
    TWO + "null}", TWO + '{"type": "worker"}}',
    TWO + '{"type": "worker", "index": 2}}',
    TWO + '{"type": "worker", "index": -1}}',
    TWO + '{"type": "ps", "index": 0}}', TWO[:-8] + "}",
    '{"cluster": {"worker": ["a:1", "a:1"]}, '
    '"task": {"type": "worker", "index": 0}}',
    '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}',
    '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, '
    '"task": {"type": "worker", "index": 0}}'])
def test_a_wrong_tf_config_is_one_clear_error(
        monkeypatch, tmp_path, capsys, text):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    assert experiment.main(tiny, [
        "tiny.py", f"--run_dir={tmp_path / 'run'}",
        "--distribution=multi_worker"]) == 1
    error = capsys.readouterr().err
    assert f"TF_CONFIG={text or 'unset'}" in error and '"index": 0' in error
    assert "--distribution=none" in error and not (tmp_path / "run").exists()


@pytest.mark.parametrize("local, meta_batch, order, words", [
    (2, 5, "parallel", "meta_batch=5 cannot be shared equally by 4"),
    (1, 4, "sequential", "task_order=sequential")])
def test_what_replicas_cannot_share(local, meta_batch, order, words):
    replicas = Replicas(Cluster(("a:1", "b:2")), local)
    with pytest.raises(InputError, match=words):
        replicas.check(meta_batch, order)
    replicas.check(8, "parallel")
    Replicas().check(meta_batch, order)


def test_distribution_is_no_part_of_what_is_trained():
    assert "distribution" not in Config.training_flags()
    assert Config(distribution="mirrored").lines() == Config().lines()
