// Section 4: a function from a few points, from several initializations.

import { COLOURS, Latest, ask, byId, make } from "./shared.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 400, HEIGHT = 300, HIGH = 6, MOST_POINTS = 50, WAVE_POINTS = 10;
const NEAR = 12; // Of a point, in the plot's units.

export async function startSineTab(about) {
  const [left, right] = [about.grid[0], about.grid.at(-1)];
  const toX = (x) => ((x - left) / (right - left)) * WIDTH;
  const toY = (y) => (0.5 - y / (2 * HIGH)) * HEIGHT;
  let points = [], truth = null, answered = [];

  // With no point and no step, any point does.
  const first = await ask("/sine", { points: [[0, 0]], steps: 0 });
  if (!first) return;
  const plots = first.curves.map(({ name, y }, i) => {
    const svg = part("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      role: "img", "aria-label": `${name}: f before and after` });
    svg.append(
      part("line", { class: "axis", x1: 0, x2: WIDTH, y1: toY(0), y2: toY(0) }),
      part("line", { class: "axis", x1: toX(0), x2: toX(0), y1: 0, y2: HEIGHT }),
      part("polyline", { class: "before", points: path(y) }),
      mark(left, 4, toY(0) - 5), mark(right, WIDTH - 4, toY(0) - 5, "end"),
      mark(5, toX(0) + 5, toY(5) + 4), mark(-5, toX(0) + 5, toY(-5) + 4));
    const moving = part("g", {});
    svg.append(moving);
    svg.addEventListener("click", (event) => click(svg, event));
    const caption = make("figcaption", {}, name);
    const figure = make("figure", {}, caption, svg);
    figure.style.setProperty("--colour", COLOURS[i % COLOURS.length]);
    byId("plots").append(figure);
    return { name, caption, moving };
  });
  byId("missing").hidden = !about.missing.length;
  byId("missing").textContent = `Not there: ${about.missing.join(", ")}. ` +
    "python run_sine.py --compare makes them; or give --sine=DIR,DIR.";

  function path(y) {
    return y.map((v, i) => `${toX(about.grid[i])},${toY(v)}`).join(" ");
  }

  function click(svg, event) {
    const box = svg.getBoundingClientRect();
    const px = ((event.clientX - box.left) / box.width) * WIDTH;
    const py = ((event.clientY - box.top) / box.height) * HEIGHT;
    const near = points.findIndex(([x, y]) =>
      Math.hypot(toX(x) - px, toY(y) - py) < NEAR);
    if (near >= 0) change(points.filter((_, i) => i !== near), truth);
    else add(left + (px / WIDTH) * (right - left), (0.5 - py / HEIGHT) * 2 * HIGH);
  }

  function add(x, y) {
    change([...points, [x, y]].slice(-MOST_POINTS), truth);
  }

  function change(newPoints, newTruth) {
    points = newPoints;
    truth = points.length ? newTruth : null;
    update();
  }

  const latest = new Latest("/sine", ({ curves }, wave) => {
    if (!points.length) return; // Cleared meanwhile.
    answered = curves.map(({ y }) => ({ y, error: wave && error(y, wave) }));
    paint();
  }, byId("plots"));

  // Mean squared error, as the paper's.
  function error(y, wave) {
    return y.reduce((sum, v, i) =>
      sum + (v - wave(about.grid[i])) ** 2, 0) / y.length;
  }

  function update() {
    byId("sine-steps-shown").textContent = byId("sine-steps").value;
    byId("sine-answer").textContent = points.length ? "" :
      "Click into a plot, or take a random wave.";
    if (!points.length) answered = [];
    paint();
    if (points.length) {
      latest.ask({ points, steps: Number(byId("sine-steps").value) }, truth);
    }
  }

  function paint() {
    plots.forEach(({ name, caption, moving }, i) => {
      const curve = answered[i];
      moving.replaceChildren(
        ...(truth ? [part("polyline", { class: "truth",
          points: path(about.grid.map(truth)) })] : []),
        ...(curve ? [part("polyline", { points: path(curve.y) })] : []),
        ...points.map(([x, y]) =>
          part("circle", { cx: toX(x), cy: toY(y), r: 6 })));
      caption.textContent = curve?.error == null ? name :
        `${name}: mean squared error ${curve.error.toPrecision(2)}`;
    });
  }

  byId("task").addEventListener("click", () => {
    const amplitude = 0.1 + 4.9 * Math.random();
    const phase = 2 * Math.PI * Math.random();
    const wave = (x) => amplitude * Math.sin(x + phase);
    change(Array.from({ length: WAVE_POINTS }, () => {
      const x = left + (right - left) * Math.random();
      return [x, wave(x)];
    }), wave);
  });
  byId("undo-point").addEventListener("click", () =>
    change(points.slice(0, -1), truth));
  byId("clear-points").addEventListener("click", () => change([], null));
  byId("sine-steps").addEventListener("input", update);
  byId("sine-controls").addEventListener("submit", (event) => {
    event.preventDefault();
    add(Number(byId("x").value), Number(byId("y").value));
  });
  update();
}

// A number beside an axis.
function mark(value, x, y, anchor = "start") {
  const text = part("text", { x, y, "text-anchor": anchor });
  text.textContent = value;
  return text;
}

function part(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, value);
  }
  return element;
}
