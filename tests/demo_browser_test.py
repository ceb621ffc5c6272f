"""The interactive demonstration in Chromium, and on Omniglot's drawings."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from demo_test import save_classifier, save_sine
from PIL import Image

from reptile_tf import EvaluationTasks, Learner
from reptile_tf.datasets import omniglot
from reptile_tf.datasets.omniglot import drawings
from reptile_tf.demo import drawing
from reptile_tf.runs import command_line

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The command as a user starts it."""
    home = tmp_path_factory.mktemp("demo")
    environment = {k: v for k, v in os.environ.items()
                   if k != "TF_CPP_MIN_LOG_LEVEL"}
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # A shell's background, where tests may run, ignores Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
            [sys.executable, "-m", "reptile_tf.demo", "--nobrowser",
             f"--initialization={save_classifier(home / 'images')}",
             f"--sine={save_sine(home / 'reptile')}"],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, env=environment) as process:
        try:
            shown = process.stdout.readline() + process.stdout.readline()
            yield re.fullmatch(
                f"initialization: {home / 'images'}\n"
                r"(http://127\.0\.0\.1:\d+/)  \(Ctrl-C stops\)\n", shown)[1]
        finally:
            process.send_signal(signal.SIGINT)
            try:
                left = process.communicate(timeout=300)[0]
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    assert (process.returncode, left.strip()) == (0, "")


@pytest.fixture(scope="module")
def driver():
    webdriver = pytest.importorskip("selenium.webdriver")
    paths = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in paths:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu",
                 "--disable-dev-shm-usage", "--window-size=1200,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs",
                           {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(
        options, webdriver.ChromeService(executable_path=paths[1]))
    yield driver
    driver.quit()


@pytest.fixture
def page(driver, address):
    driver.get(address)
    wait(driver, "return document.querySelectorAll('#plots svg').length == 2")
    yield driver
    errors = [e for e in driver.get_log("browser") if e["level"] == "SEVERE"]
    assert not errors, errors
    asked = {json.loads(e["message"])["message"]["params"]["request"]["url"]
             for e in driver.get_log("performance")
             if '"Network.requestWillBeSent"' in e["message"]}
    assert all(url.startswith((address, "data:")) for url in asked), asked


def wait(driver, condition):
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(driver, 300, 0.05).until(
        lambda d: d.execute_script(condition))


def element(driver, selector, number=0):
    shown = [e for e in driver.find_elements("css selector", selector)
             if e.is_displayed()]
    return shown[number]


def draw(driver, number, *points):
    """One stroke with the mouse; a paper's sides are 0 and 1."""
    from selenium.webdriver import ActionChains

    paper = element(driver, ".paper", number)
    side = paper.size["width"]
    chain = ActionChains(driver, 20)
    for i, (x, y) in enumerate(points):
        chain.move_to_element_with_offset(
            paper, int((x - 0.5) * side), int((y - 0.5) * side))
        if i == 0:
            chain.click_and_hold()
    chain.release().perform()


def choose(driver, name, value):
    driver.execute_script(
        "const e = document.getElementById(arguments[0]);"
        "e.value = arguments[1];"
        "e.dispatchEvent(new Event('input'));"
        "e.dispatchEvent(new Event('change'))", name, value)


def shares(driver, query=0):
    return [int(e.text.rstrip(" %") or -1) for e in element(
        driver, ".query", query).find_elements("css selector", ".share")
            if e.is_displayed()]


def said(driver, text):
    """Waits until it is the answer to what is on the page now."""
    wait(driver, "const answer = document.getElementById('answer'); return "
                 "answer.ariaBusy == 'false' && answer.textContent"
                 f".includes('{text}')")


def answered(driver):
    said(driver, "Answered")
    return shares(driver)


def answer_to(driver, change):
    """Waits for the answer to the one question that a change asks."""
    driver.execute_script(
        "document.getElementById('answer').textContent = ''")
    change()
    answered(driver)


DOWN, ACROSS = [(0.5, 0.1), (0.5, 0.5), (0.5, 0.9)], [(0.1, 0.5), (0.9, 0.5)]


def test_draw_and_read_the_answer(page):
    choose(page, "classes", 2)
    choose(page, "steps", 40)
    draw(page, 0, *DOWN)
    draw(page, 1, *ACROSS)
    said(page, "Draw a query")
    draw(page, 2, *DOWN)
    one, other = answered(page)
    assert one > other and one + other in (99, 100, 101)
    # It is asked with every stroke, and undone.
    draw(page, 2, *ACROSS)
    wait(page, "return [...document.querySelectorAll('.share')][0]"
               f".textContent != '{one} %'")
    element(page, "[aria-label='Query 1: take the last stroke back']").click()
    wait(page, "return [...document.querySelectorAll('.share')][0]"
               f".textContent == '{one} %'")
    # What the network sees is ink on paper.
    ink = page.execute_script(
        "const c = arguments[0]; return [...c.getContext('2d')"
        ".getImageData(0, 0, 28, 28).data].filter((v, i) => i % 4 == 3 && v)"
        ".length", element(page, ".seen", 2))
    assert 20 < ink < 100
    name = element(page, "input[aria-label='Name of class 1']")
    name.clear()
    name.send_keys("bar")
    assert "bar" in element(page, ".query .bars").text
    element(page, "#clear-all").click()
    wait(page, "return !document.querySelector('.share').textContent")


def test_modes_steps_and_the_example(page):
    choose(page, "queries", 3)
    page.execute_script("Math.random = () => 0.37")  # One example for all.
    element(page, "#example").click()
    answered(page)
    seen = []
    for mode, steps in (("alone", 30), ("together", 30), ("alone", 0)):
        choice = element(page, f"input[value={mode}]")
        if not choice.is_selected():  # Else a click asks for nothing.
            answer_to(page, choice.click)
        answer_to(page, lambda n=steps: choose(page, "steps", n))
        seen.append([shares(page, query) for query in range(3)])
    assert len({str(s) for s in seen}) == 3
    assert element(page, "#steps-shown").text == "0"
    element(page, "body").send_keys("M+")
    assert element(page, "#steps-shown").text == "1"
    assert element(page, "input[value=together]").is_selected()
    answered(page)


def test_the_keyboard_draws(page):
    from selenium.webdriver import Keys

    paper = element(page, ".paper")
    strokes = ("const c = document.querySelector('.seen'); return c.getContext"
               "('2d').getImageData(0, 0, 28, 28).data.some((v) => v)")
    paper.send_keys(Keys.ARROW_UP, Keys.SPACE, *[Keys.ARROW_DOWN] * 6,
                    Keys.SPACE)
    wait(page, strokes)
    paper.send_keys(Keys.CONTROL, "z")
    wait(page, strokes.replace("return", "return !"))
    paper.send_keys(Keys.SPACE, *[Keys.ARROW_UP] * 6, Keys.SPACE)
    wait(page, strokes)
    paper.send_keys(Keys.BACKSPACE)
    wait(page, strokes.replace("return", "return !"))
    assert page.execute_script("""
        return [...document.querySelectorAll('button, input, select, .paper')]
          .filter((e) => !(e.ariaLabel || e.textContent.trim() ||
                           e.labels?.length))""") == []


def test_undo_with_the_pen_down_ends_the_stroke(page):
    from selenium.webdriver import ActionChains, Keys

    ActionChains(page, 20).move_to_element(element(page, ".paper"))\
        .click_and_hold().move_by_offset(0, 20).key_down(Keys.CONTROL)\
        .send_keys("z").key_up(Keys.CONTROL).move_by_offset(0, 20)\
        .move_by_offset(20, 0).release().perform()
    draw(page, 0, *DOWN)
    wait(page, "return document.querySelector('.seen').getContext('2d')"
               ".getImageData(0, 0, 28, 28).data.some((v) => v)")


def test_a_pen_that_was_lifted_unseen_does_not_draw(page):
    from selenium.webdriver import ActionChains

    page.execute_script("""
        window.addEventListener('pointerup', window.hide = (e) =>
          e.stopImmediatePropagation(), true)""")
    ActionChains(page, 20).move_to_element(element(page, ".paper"))\
        .click_and_hold().move_by_offset(0, 20).release().perform()
    drawn = "return document.querySelector('.paper').toDataURL()"
    before = page.execute_script(drawn)
    ActionChains(page, 20).move_by_offset(15, 0).move_by_offset(0, -30)\
        .perform()
    assert page.execute_script(drawn) == before
    page.execute_script(
        "window.removeEventListener('pointerup', window.hide, true)")
    draw(page, 0, *DOWN)
    assert page.execute_script(drawn) != before


def test_touch_draws(page):
    """Fingers, as a phone sends them, do not scroll the page."""
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    page.execute_cdp_cmd("Emulation.setTouchEmulationEnabled",
                         {"enabled": True})
    try:
        paper = element(page, ".paper")
        page.execute_script("arguments[0].scrollIntoView({block: 'center'})",
                            paper)
        before = page.execute_script("return scrollY")
        box = page.execute_script(
            "const b = arguments[0].getBoundingClientRect();"
            "return [b.left, b.top, b.width]", paper)
        for kind, at in (("touchStart", 0.2), ("touchMove", 0.5),
                         ("touchMove", 0.8), ("touchEnd", None)):
            page.execute_cdp_cmd("Input.dispatchTouchEvent", {
                "type": kind, "touchPoints": [] if at is None else [
                    {"x": box[0] + box[2] / 2, "y": box[1] + box[2] * at}]})
        wait(page, "return document.querySelector('.seen').getContext('2d')"
                   ".getImageData(0, 0, 28, 28).data.some((v) => v)")
        assert page.execute_script("return scrollY") == before
    finally:
        for command, off in (("clearDeviceMetricsOverride", {}), (
                "setTouchEmulationEnabled", {"enabled": False})):
            page.execute_cdp_cmd(f"Emulation.{command}", off)


@pytest.mark.parametrize("tab", ["draw-tab", "sine-tab"])
def test_a_phone_scrolls_down_alone(page, tab):
    choose(page, "drawings", 5)
    choose(page, "classes", 4)
    element(page, f"#{tab}").click()
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    wide = page.execute_script("return document.documentElement.scrollWidth")
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide <= 390


def test_sine_waves(page):
    element(page, "#sine-tab").click()
    curve = ("document.querySelector('#plots polyline:not([class])')"
             "?.getAttribute('points')")
    assert page.execute_script(f"return {curve} ?? null") is None
    element(page, "#plots svg").click()
    wait(page, f"return {curve}")
    after = page.execute_script(f"return {curve}")
    choose(page, "sine-steps", 2)
    wait(page, f"return {curve} != '{after}'")
    element(page, "#task").click()
    wait(page, "return document.querySelectorAll('#plots figure:first-child "
               "circle').length == 10")
    wait(page, "return /^reptile: mean squared error/.test("
               "document.querySelector('figcaption').textContent)")
    element(page, "#x").send_keys("1.5")
    element(page, "#y").send_keys("-2", "\n")
    wait(page, "return document.querySelectorAll('#plots figure:first-child "
               "circle').length == 11")
    wait(page, "return document.querySelector('#plots').ariaBusy == 'false'")


# Omniglot.


def thinned(ink):
    """One pixel wide [105, 105]; Zhang and Suen (1984)."""
    ink = np.pad(ink, 1).astype(int)
    changed = True
    while changed:
        changed = False
        for first in (True, False):
            p = [np.roll(ink, shift, (0, 1)) for shift in (
                (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1),
                (1, 1))]
            around = sum(p)
            turns = sum((a == 0) & (b == 1)
                        for a, b in zip(p, p[1:] + p[:1], strict=True))
            sides = ((p[0] * p[2] * p[4], p[2] * p[4] * p[6]) if first else
                     (p[0] * p[2] * p[6], p[0] * p[4] * p[6]))
            gone = ((ink == 1) & (2 <= around) & (around <= 6) & (turns == 1)
                    & (sides[0] == 0) & (sides[1] == 0))
            ink[gone] = 0
            changed |= bool(gone.any())
    return ink[1:-1, 1:-1].astype(bool)


def traced(ink):
    """The strokes of a drawing: between neighbours on its middle lines."""
    middle = np.argwhere(thinned(ink))
    found = {tuple(p) for p in middle}
    return [np.array([[x, y], [x + dx, y + dy]]) / 105 + 0.5 / 105
            for y, x in found
            for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1), (1, -1))
            if (y + dy, x + dx) in found]


def raw_drawings(folder, characters, rng):
    """bool [characters, 20, 105, 105] of Omniglot's second half."""
    with zipfile.ZipFile(folder / "images_evaluation.zip") as archive:
        names = {}
        for name in sorted(archive.namelist()):
            if name.endswith(".png"):
                names.setdefault(name.rpartition("/")[0], []).append(name)
        chosen = rng.choice(sorted(names), characters, replace=False)
        return np.array([[np.asarray(Image.open(io.BytesIO(
            archive.read(name))).convert("L")) < 128 for name in names[c]]
            for c in chosen])


@pytest.mark.data
def test_omniglots_own_drawings_keep_their_accuracy(real_data, tmp_path, rng):
    """Traced, and drawn again through the page's pipeline."""
    assert command_line.main(omniglot, [
        "run_omniglot.py", f"--data_dir={real_data}", "--meta_iters=150",
        f"--run_dir={tmp_path}", "--shots=5", "--eval_batch=15",
        "--eval_interval=0", "--eval_interval_samples=8",
        "--eval_samples=8"]) == 0
    lost = accuracies(Learner.load(tmp_path / "initialization"),
                      raw_drawings(real_data, 40, rng), rng)
    assert all(before > 0.4 for before, _ in lost), lost
    assert all(after > before - 0.02 for before, after in lost), lost


def accuracies(learner, ink, rng, tasks=60):
    """(original, drawn again) of 1-shot and 5-shot tasks, both of one draw.

    Three queries a class, transductive, which is faster.
    """
    originals = 1 - drawings.shrink(ink).astype(np.float32)[..., None]
    again = np.array([[drawing.picture(traced(d)) for d in c] for c in ink])
    found = []
    for shots in (1, 5):
        classes = np.array([rng.choice(len(ink), 5, replace=False)
                            for _ in range(tasks)])[..., None]
        which = np.array([[rng.choice(20, shots + 3, replace=False)
                           for _ in range(5)] for _ in range(tasks)])
        labels = np.broadcast_to(np.arange(5)[:, None], which.shape[1:])
        found.append(tuple(learner.evaluate(EvaluationTasks.cut(
            *(np.reshape(v, (tasks, -1, *np.shape(v)[3:])) for v in (
                images[classes, which[..., 3:]],
                np.broadcast_to(labels[:, 3:], (tasks, 5, shots)),
                images[classes, which[..., :3]],
                np.broadcast_to(labels[:, :3], (tasks, 5, 3)))),
            steps=15, batch=5 if shots == 1 else 15), True).mean
            for images in (originals, again)))
    return found
