"""The interactive demonstration, without a browser."""

import http.client
import io
import json
import math
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from reptile_tf import (
    AdaptConfig,
    InnerConfig,
    Learner,
    squared_error,
    trained,
)
from reptile_tf.datasets.omniglot import drawings
from reptile_tf.demo import answers, drawing, server, waves
from reptile_tf.errors import InputError
from reptile_tf.networks import paper_networks

WAYS, STEPS = 4, 6
CROSS = [[0.1, 0.1, 0.5, 0.6, 0.9, 0.9], [0.9, 0.1, 0.1, 0.9]]
BAR = [[0.2, 0.5, 0.8, 0.52]]
RING = [[0.5 + 0.3 * f(a / 9)
         for a in range(60) for f in (math.cos, math.sin)]]
HOOK = [[0.3, 0.2, 0.3, 0.8, 0.6, 0.7], [0.5, 0.5]]
ASKED = {"support": [[CROSS], [BAR, HOOK], [RING]], "queries": [HOOK, RING],
         "steps": STEPS, "transductive": False}


def save_classifier(folder: Path, shape=(28, 28, 1), steps=STEPS) -> Path:
    keras.utils.set_random_seed(3)
    Learner(keras.Sequential([
        keras.Input(shape), keras.layers.Conv2D(6, 3, strides=3),
        keras.layers.BatchNormalization(), keras.layers.ReLU(),
        keras.layers.Flatten(), keras.layers.Dense(WAYS)]),
        InnerConfig(0.01), adaptation=AdaptConfig(steps, 3)).save(folder)
    return folder


def save_sine(folder: Path) -> Path:
    Learner(paper_networks.sine(8, "relu"), InnerConfig(0.03, "sgd", "mean"),
            squared_error, AdaptConfig(5, 2)).save(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("demo")
    save_classifier(home / "images")
    save_classifier(home / "patient", steps=70)
    (home / "maml").mkdir()
    save_sine(home / "maml/initialization")
    return home


@pytest.fixture(scope="module")
def answering(folder):
    return answers.Answers(folder / "images", [folder / "maml/initialization"],
                           [Path("runs/not there")])


@pytest.fixture(scope="module")
def serving(answering):
    with server.Server(answering) as one:
        thread = threading.Thread(target=one.serve_forever)
        thread.start()
        yield one
        one.shutdown()
        thread.join()


def send(serving, method, path, body=None, **headers):
    """The status, headers and content of a request; `headers` replace."""
    connection = http.client.HTTPConnection(*serving.server_address[:2],
                                            timeout=60)
    content = body if isinstance(body, bytes | None) else (
        json.dumps(body).encode())
    sent = {"Content-Type": "application/json",
            **{k.replace("_", "-"): v for k, v in headers.items()}}
    connection.request(method, path, content, sent)
    answer = connection.getresponse()
    result = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return result


def extent(ink):
    """First and last row and column, and how many."""
    rows, columns = ink.any(1).nonzero()[0], ink.any(0).nonzero()[0]
    return [(v[0], v[-1], v[-1] - v[0] + 1) for v in (rows, columns)]


def strokes(lists):
    return [np.array(s, float).reshape(-1, 2) for s in lists]


def test_a_client_that_sends_half_and_waits_is_dropped_in_silence(
        serving, monkeypatch, capfd):
    monkeypatch.setattr(server.Handler, "timeout", 0.1)
    host, port = serving.server_address[:2]
    with socket.create_connection((host, port), 60) as client:
        client.sendall(
            f"POST /answer HTTP/1.1\r\nHost: {host}:{port}\r\n"
            "Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
            .replace("/answer", next(iter(serving.answers.posts))).encode())
        assert client.recv(1000) == b""
    assert capfd.readouterr().err == ""


# The pipeline.


def test_the_pen_is_omniglots():
    line = drawing.ink(strokes([[0.2, 0.3, 0.7, 0.3]]))
    (_, _, thick), (_, _, wide) = extent(line)
    assert thick == drawing.PEN and wide == pytest.approx(0.5 * 105 + 5, abs=1)
    assert np.all(line.sum(0)[30:70] == thick)
    dot = drawing.ink(strokes([[0.9, 0.1]]))
    assert [n for _, _, n in extent(dot)] == [drawing.PEN] * 2


@pytest.mark.parametrize("side, want", [(0.03, 44), (0.2, 44), (0.5, 57.5),
                                        (0.7, 78.5), (1.0, 88)])
def test_a_size_omniglot_does_not_have_becomes_the_nearest(side, want):
    tall = [[0, 0, side / 3, 0], [0, 0, 0, side]]
    (_, _, height), (_, _, width) = extent(drawing.ink(strokes(tall)))
    assert height == pytest.approx(want, abs=1)
    assert width == pytest.approx((want - 5) / 3 + 5, abs=1)


@pytest.mark.parametrize("x, y", [(0, 0), (0.3, 0.1), (0.4, 0.4)])
def test_every_drawing_is_in_the_middle(x, y):
    square = np.array([[0, 0], [0.6, 0], [0.6, 0.6], [0, 0.6], [0, 0]])
    for low, high, _ in extent(drawing.ink([square + (x, y)])):
        assert (low + high + 1) / 2 == pytest.approx(drawing.CENTRE, abs=0.6)


def test_the_picture_is_that_of_the_drawing_as_an_omniglot_file():
    file = io.BytesIO()
    ink = drawing.ink(strokes(CROSS))
    Image.fromarray(~ink).convert("1").save(file, "PNG")
    want = drawings.decode(file.getvalue(), "here")[0] / 255
    got = drawing.picture(strokes(CROSS))
    assert got.shape == (28, 28, 1) and got.dtype == np.float32
    np.testing.assert_array_equal(got[..., 0], want)
    assert 0.02 < (got == 0).mean() < 0.3


# The answers.


@pytest.mark.parametrize("transductive", [True, False])
def test_an_answer_is_the_endpoints(answering, folder, transductive):
    """At its own number of steps; of 4 outputs the first 3 are shown."""
    got = answering.classify({**ASKED, "transductive": transductive})
    loaded = tf.saved_model.load(str(folder / "images"))
    support, queries = (
        np.stack([drawing.picture(strokes(d)) for d in drawn])
        for drawn in ([CROSS, BAR, HOOK, RING], [HOOK, RING]))
    logits = loaded.adapt_and_predict(
        support, np.array([0, 1, 1, 2]), queries, transductive)["logits"]
    odds = np.exp(np.float64(logits[:, :3]))
    np.testing.assert_allclose(got["probabilities"],
                               odds / odds.sum(1, keepdims=True), rtol=1e-4)
    assert got["pictures"]["queries"][1] == "".join(
        map(str, queries[1].astype(int).ravel()))
    assert [len(c) for c in got["pictures"]["support"]] == [1, 2, 1]


def test_a_runs_own_number_of_steps_may_be_asked_for(folder):
    many = answers.Answers(folder / "patient", [])
    assert many.about["most_steps"] == many.about["steps"] == 70
    assert many.classify({**ASKED, "steps": 70})["probabilities"]
    with pytest.raises(InputError, match="whole number from 0 to 70"):
        many.classify({**ASKED, "steps": 71})


def test_without_steps_labels_do_not_matter(answering):
    asked = {**ASKED, "steps": 0, "support": [[CROSS], [BAR], [RING]]}
    turned = {**asked, "support": [[RING], [CROSS], [BAR]]}
    learnt = [answering.classify({**a, "steps": 20})["probabilities"][1]
              for a in (asked, turned)]
    assert [np.argmax(p) for p in learnt] == [2, 0]
    np.testing.assert_allclose(answering.classify(asked)["probabilities"],
                               answering.classify(turned)["probabilities"],
                               rtol=1e-4)


def test_until_all_is_drawn_there_are_pictures_alone(answering):
    for change in ({"queries": []}, {"support": [[CROSS], []]}):
        got = answering.classify({**ASKED, **change})
        assert got["probabilities"] is None
        assert set(got["pictures"]["support"][0][0]) == {"0", "1"}


def test_a_stroke_of_a_query_is_one_prediction(answering, monkeypatch):
    learner, calls = answering.classifier._learner, []
    adapt = learner.adapt
    monkeypatch.setattr(learner, "adapt",
                        lambda *a: calls.append(a) or adapt(*a))
    traces = [f.experimental_get_tracing_count()
              for f in (learner._steps, learner._score)]
    for query in ([[BAR[0]], [CROSS[0]]], [[RING[0]]], [HOOK, BAR, RING]):
        answering.classify({**ASKED, "steps": 17, "queries": query})
    assert len(calls) == 1
    answering.classify({**ASKED, "steps": 17, "support": [[HOOK], [RING]]})
    answering.classify({**ASKED, "steps": 18})
    assert len(calls) == 3
    assert traces == [f.experimental_get_tracing_count()
                      for f in (learner._steps, learner._score)]


def test_what_is_kept_is_bounded(answering, monkeypatch):
    monkeypatch.setattr("reptile_tf.demo.classifier.KEPT", 2)
    first = answering.classify({**ASKED, "steps": 1})
    for steps in (2, 3, 4, 1):
        again = answering.classify({**ASKED, "steps": steps})
    assert again == first and len(answering.classifier._adapted) == 2


def test_an_example_can_be_asked(answering):
    asked = {"classes": 4, "drawings": 2, "queries": 3, "seed": 5}
    got = answering.example(asked)
    assert [len(c) for c in got["support"]] == [2] * 4
    assert got == answering.example(asked)
    assert got != answering.example({**asked, "seed": 6})
    answer = answering.classify({**got, "steps": 2, "transductive": True})
    assert np.shape(answer["probabilities"]) == (3, 4)


def test_curves_are_gradient_descent(answering):
    """Full-batch steps on the mean squared error, by the tape."""
    points = [[-4, 1.5], [0, -2], [3, 0.5]]
    got = answering.sine({"points": points, "steps": 3})["curves"]
    assert [c["name"] for c in got] == ["maml", waves.UNTRAINED]
    x, y = np.split(np.float32(points), 2, 1)
    for curve, seed, activation, rate in ((got[0], 8, "relu", 0.03),
                                          (got[1], 0, "tanh", 0.02)):
        model = paper_networks.sine(seed, activation)
        for _ in range(3):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(model(x) - y))
            for w, g in zip(model.trainable_variables, tape.gradient(
                    loss, [v.value for v in model.trainable_variables]),
                    strict=True):
                w.assign_sub(rate * g)
        np.testing.assert_allclose(
            curve["y"], model(np.linspace(-5, 5, 50)[:, None])[:, 0],
            atol=1e-4)


def test_an_initialization_of_other_examples_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match="run of run_omniglot.py"):
        answers.Answers(folder / "maml/initialization", [])
    with pytest.raises(InputError, match="run_sine.py made"):
        waves.Waves([folder / "images"])


@pytest.mark.parametrize("asked", ["~/images", "omniglot_5way", ""])
def test_the_initialization_shown(folder, monkeypatch, capsys, asked):
    """What comes with the package, unless another is asked for."""
    from reptile_tf.demo import __main__ as page
    shown = {"~/images": folder / "images"}.get(
        asked, trained.FOLDER / (asked or page.PUBLISHED))
    monkeypatch.setenv("HOME", str(folder))
    with flagsaver.flagsaver():
        flags.FLAGS(["page", *[f"--initialization={asked}"] * bool(asked)])
        server = page.serve()
    server.server_close()
    assert capsys.readouterr().out == f"initialization: {shown}\n"
    assert "~" in asked or shown.name in trained.names()


def test_the_port_is_the_one_that_is_asked_for(folder):
    from reptile_tf.demo import __main__ as page
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with flagsaver.flagsaver():
        flags.FLAGS(["page", f"--initialization={folder / 'images'}",
                     f"--port={port}"])
        with page.serve() as asked:
            assert asked.url == f"http://127.0.0.1:{port}/"


# HTTP.


def test_the_page_asks_no_other_address(serving):
    served = set()
    for path in ("/", *server.FILES):
        status, headers, content = send(serving, "GET", path)
        text = content.decode()
        assert status == 200 and headers["Content-Type"].startswith("text/")
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert not re.search(r"//(?!www\.w3\.org/2000/svg)\w+[.:]",
                             re.sub(r"^\s*//.*", "", text, flags=re.M))
        served |= {"/" + name for name in re.findall(
            r'(?:href|src|from) ?=?"(?:\./)?([\w.]+\.(?:css|js))"', text)}
    assert served == set(server.FILES) - {"/", "/page.html"}


def test_what_the_page_is_told(serving):
    about = json.loads(send(serving, "GET", "/about")[2])
    assert (about["classes"], about["steps"]) == (WAYS, STEPS)
    assert about["missing"] == ["runs/not there"] and len(about["grid"]) == 50


@pytest.mark.parametrize("headers", [
    {"Host": "evil.example"}, {"Host": "evil.example:{port}"},
    {"Host": "127.0.0.1"}, {"Origin": "http://evil.example"},
    {"Origin": "null"}, {"Origin": "https://127.0.0.1:{port}"},
    {"Origin": "http://127.0.0.1:1"}])
@pytest.mark.parametrize("method, path", [("GET", "/"), ("GET", "/about"),
                                          ("POST", "/classify")])
def test_another_name_is_refused(serving, headers, method, path):
    headers = {k: v.format(port=serving.server_port)
               for k, v in headers.items()}
    status, _, content = send(serving, method, path, ASKED, **headers)
    assert status == 403 and serving.url in json.loads(content)["error"]


def test_its_own_names_are_not(serving):
    for name in ("127.0.0.1", "localhost"):
        own = f"{name}:{serving.server_port}"
        assert send(serving, "POST", "/classify", ASKED, Host=own,
                    Origin=f"http://{own}")[0] == 200
    assert serving.server_address[0] == "127.0.0.1"


def test_browsers_leave_out_port_80(answering):
    class Port80(server.Server):
        def server_bind(self):
            super().server_bind()
            self.server_port = 80

    with Port80(answering) as one:
        assert one.hosts == {"127.0.0.1", "127.0.0.1:80", "localhost",
                             "localhost:80"}


def test_an_answer_that_is_not_finite_is_told(serving, monkeypatch):
    """Which JavaScript's JSON has no word for."""
    monkeypatch.setitem(serving.answers.posts, "/classify",
                        lambda body: {"curves": [[0.5, float("nan")]]})
    status, _, content = send(serving, "POST", "/classify", ASKED)
    assert status == 422 and "not finite" in json.loads(content)["error"]


def without(name):
    return {k: v for k, v in ASKED.items() if k != name}


@pytest.mark.parametrize("body, says", [
    (b"", "not JSON"), (b"\xff", "not JSON"), (b"[" * 5000, "not JSON"),
    (b"[1]", "JSON object"), (b'{"steps": NaN}', "NaN is not a number"),
    (without("support"), "support must be a list"),
    ({**ASKED, "support": [[CROSS]]}, "1 classes: give 2 to 4"),
    ({**ASKED, "support": [[CROSS]] * 5}, "5 classes: give 2 to 4"),
    ({**ASKED, "support": [[CROSS] * 6, [BAR]]}, "class 0 must be a list of "
     "at most 5 drawings"),
    ({**ASKED, "support": [[CROSS], 7]}, "class 1 must be"),
    ({**ASKED, "queries": [[]]}, "1 to 100 strokes"),
    ({**ASKED, "queries": [[[]]]}, "2 to 10000 numbers"),
    ({**ASKED, "queries": [[[0.1, 0.2, 0.3]]]}, "x, y, ..."),
    ({**ASKED, "queries": [[[0.1, 1.2]]]}, "from 0 to 1"),
    ({**ASKED, "queries": [[[True, 0]]]}, "from 0 to 1"),
    ({**ASKED, "queries": [[["0", 0]]]}, "from 0 to 1"),
    ({**ASKED, "queries": [[[1e999, 0]]]}, "Infinity is not a number"),
    ({**ASKED, "steps": 51}, "whole number from 0 to 50"),
    ({**ASKED, "steps": 2.0}, "whole number"),
    ({**ASKED, "steps": True}, "whole number"),
    ({**ASKED, "transductive": 1}, "true or false")])
def test_a_bad_question_is_told_what_is_wrong(serving, body, says):
    status, _, content = send(serving, "POST", "/classify", body)
    error = json.loads(content)["error"]
    assert status == 400 and says in error and "\n" not in error


@pytest.mark.parametrize("path, body, says", [
    ("/sine", {"points": [], "steps": 1}, "1 to 50"),
    ("/sine", {"points": [[0, 11]], "steps": 1}, "-10 to 10"),
    ("/sine", {"points": [[0, 1]], "steps": 33}, "0 to 32"),
    ("/sine", {"points": [[0, 1, 2, 3]], "steps": 1}, "2 to 2 numbers"),
    ("/example", {"classes": 5, "drawings": 1, "queries": 1, "seed": 1},
     "classes must be a whole number from 2 to 4"),
    ("/example", {"classes": 2, "drawings": 1, "queries": 1, "seed": 2**31},
     "seed must be")])
def test_the_other_questions_too(serving, path, body, says):
    status, _, content = send(serving, "POST", path, body)
    assert status == 400 and says in json.loads(content)["error"]


@pytest.mark.parametrize("headers, says", [
    ({"Content_Type": "text/plain"}, "application/json"),
    ({"Content_Length": "-1"}, "Content-Length"),
    ({"Content_Length": "1e3"}, "Content-Length"),
    ({"Content_Length": str(server.LARGEST_BODY + 1)}, "1,048,576"),
    ({"Content_Length": "9" * 5000}, "Content-Length")])
def test_a_body_of_no_use_is_not_read(serving, headers, says):
    status, answered, content = send(serving, "POST", "/classify", b"{}",
                                     **headers)
    assert status == 400 and says in json.loads(content)["error"]
    assert answered["Connection"] == "close"


def test_what_is_not_there_is_not_served(serving):
    for path in ("/../server.py", "/server.py", "/page.html/", "/%2e%2e"):
        assert send(serving, "GET", path)[0] == 404
    assert send(serving, "POST", "/about", {})[0] == 404
    assert send(serving, "PUT", "/classify", {})[0] == 501


def test_a_taken_port_is_one_sentence(serving, answering):
    with pytest.raises(InputError, match=f"--port={serving.server_port} "):
        server.Server(answering, serving.server_port)


def test_two_browsers_do_not_mix(serving):
    """Each is answered as if it were alone."""
    asked = [{**ASKED, "steps": 1 + i % 5, "transductive": i % 2 == 0,
              "queries": [[CROSS, BAR, RING, HOOK][i % 4]],
              "support": [[RING], [CROSS]] if i % 3 else ASKED["support"]}
             for i in range(24)]

    def answer(body):
        return json.loads(send(serving, "POST", "/classify", body)[2])

    alone = [answer(body)["probabilities"] for body in asked]
    serving.answers.classifier._adapted.clear()
    with ThreadPoolExecutor(6) as clients:
        together = [a["probabilities"] for a in clients.map(answer, asked)]
    assert alone == together
    assert len({json.dumps(p) for p in alone}) > 12
