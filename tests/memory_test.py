"""Free memory, with NVML and TensorFlow replaced."""

import math
from types import SimpleNamespace

import pynvml
import pytest
import tensorflow as tf

from reptile_tf.execution import memory


@pytest.mark.parametrize("visible, device", [
    (None, 0), ("2,1", 2), ("GPU-ab,GPU-cd", "GPU-ab")])
def test_free_memory_of_the_first_visible_gpu(monkeypatch, visible, device):
    """1,000 bytes are no process's; of 300 of TensorFlow's it uses 100."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: ["GPU"])
    monkeypatch.setattr(tf.config.experimental, "get_memory_info",
                        lambda _: {"current": 100, "peak": 300})
    monkeypatch.setattr(memory, "pynvml", SimpleNamespace(
        NVMLError=OSError, nvmlInit=lambda: None, nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda i: i,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(
            free=1000 if handle == device else -1)))
    assert memory.available() == 1200


def test_a_driver_that_does_not_say_forbids_nothing(monkeypatch):
    def fail():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: ["GPU"])
    monkeypatch.setattr(tf.config.experimental, "get_memory_info",
                        lambda _: {"current": 100, "peak": 300})
    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    assert memory.available() == math.inf
    memory.require(10**15, "everything", "")
