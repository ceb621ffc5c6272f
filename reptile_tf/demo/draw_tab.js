// Few-shot classification of the user's drawings.

import { COLOURS, Latest, ask, byId, make } from "./shared.js";
import { DrawingPad } from "./drawing_pad.js";

const NAMES = ["A", "B", "C", "D", "E"];

export function startDrawTab(about) {
  const drawn = (pads) => pads.filter((pad) => pad.strokes.length);
  const classes = NAMES.slice(0, about.classes).map((name, label) => {
    const input = make("input", {
      type: "text", maxlength: 20, "aria-label": `Name of class ${label + 1}` });
    input.value = name;
    const pads = pads_of(`Class ${label + 1}, drawing`);
    const element = make("div", { class: "class" }, input,
      make("div", { class: "pads" }, ...pads.map((pad) => pad.element)));
    element.style.setProperty("--colour", COLOURS[label]);
    input.addEventListener("input", () => showNames());
    byId("support").append(element);
    return { input, pads, element };
  });
  const queries = pads_of("Query").map((pad) => {
    const bars = NAMES.slice(0, about.classes).map((_, label) => bar(label));
    const element = make("div", { class: "query" }, pad.element,
      make("div", { class: "bars" }, ...bars.map((b) => b.element)));
    byId("query-list").append(element);
    return { pad, bars, element };
  });

  function pads_of(label) {
    return Array.from({ length: about.drawings }, (_, i) =>
      new DrawingPad(`${label} ${i + 1}`, () => update()));
  }

  function choices(id, least, most, chosen) {
    for (let n = least; n <= most; n++) byId(id).append(new Option(n, n));
    byId(id).value = chosen;
    byId(id).addEventListener("change", update);
  }
  choices("classes", 2, about.classes, Math.min(3, about.classes));
  choices("drawings", 1, about.drawings, 1);
  choices("queries", 1, about.drawings, 1);
  byId("steps").max = about.most_steps;
  byId("steps").value = about.steps;
  byId("steps").addEventListener("input", update);
  byId("draw-controls").addEventListener("submit", (e) => e.preventDefault());
  for (const radio of document.getElementsByName("mode")) {
    radio.addEventListener("change", update);
  }
  byId("initialization").textContent =
    `Initialization: ${about.initialization}; its own number of steps is ` +
    `${about.steps}.`;

  const count = (id) => Number(byId(id).value);
  const shownClasses = () => classes.slice(0, count("classes"));
  const allPads = () => [...classes.flatMap((one) => one.pads),
    ...queries.map((query) => query.pad)];
  const shownQueries = () => queries.slice(0, count("queries"));

  function showNames() {
    for (const query of queries) {
      query.bars.forEach((b, label) => {
        b.name.textContent = classes[label].input.value || NAMES[label];
      });
    }
  }

  const latest = new Latest("/classify", show, byId("answer"));

  // Asks for what is on the page now.
  function update() {
    byId("steps-shown").textContent = byId("steps").value;
    classes.forEach((one, label) => {
      one.element.hidden = label >= count("classes");
      one.pads.forEach((pad, i) => {
        pad.element.hidden = i >= count("drawings");
      });
    });
    queries.forEach((query, i) => {
      query.element.hidden = i >= count("queries");
      query.bars.forEach((b, label) => {
        b.element.hidden = label >= count("classes");
      });
    });
    const support = shownClasses().map((one) =>
      drawn(one.pads.slice(0, count("drawings"))));
    const asked = shownQueries().filter((query) => query.pad.strokes.length);
    const strokes = (pads) => pads.map((pad) => pad.strokes);
    latest.ask({
      support: support.map(strokes),
      queries: strokes(asked.map((query) => query.pad)),
      steps: count("steps"),
      transductive: byId("draw-controls").elements.mode.value === "together",
    }, { support, asked, start: performance.now() });
  }

  function show({ pictures, probabilities }, { support, asked, start }) {
    const time = Math.round(performance.now() - start);
    for (const pad of allPads()) if (!pad.strokes.length) pad.show();
    support.forEach((pads, label) => pads.forEach((pad, i) => {
      pad.show(pictures.support[label][i]);
    }));
    asked.forEach((query, i) => query.pad.show(pictures.queries[i]));
    for (const query of queries) {
      const row = probabilities?.[asked.indexOf(query)];
      query.bars.forEach((b, label) => b.set(row?.[label], row));
    }
    byId("answer").textContent = probabilities
      ? `${sentence(probabilities)} Answered in ${time} ms.`
      : support.every((pads) => pads.length) ? "Draw a query."
        : "Draw at least one example of every class.";
  }

  function sentence(probabilities) {
    return probabilities.map((row) => {
      const most = row.indexOf(Math.max(...row));
      return `${classes[most].input.value || NAMES[most]}, ` +
        `${Math.round(100 * row[most])} %.`;
    }).join(" ");
  }

  async function example() {
    const answer = await ask("/example", {
      classes: count("classes"), drawings: count("drawings"),
      queries: count("queries"), seed: 1 + Math.floor(Math.random() * 1e9) });
    if (!answer) return;
    shownClasses().forEach((one, label) =>
      answer.support[label].forEach((strokes, i) => one.pads[i].load(strokes)));
    shownQueries().forEach((query, i) => query.pad.load(answer.queries[i]));
    update();
  }

  function clearAll() {
    for (const pad of allPads()) pad.load([]);
    update();
  }

  byId("example").addEventListener("click", example);
  byId("clear-all").addEventListener("click", clearAll);
  document.addEventListener("keydown", (event) => {
    if (byId("draw").hidden || event.ctrlKey || event.metaKey || event.altKey ||
        event.target.matches("input[type=text], select")) return;
    const steps = { "+": 1, "-": -1 }[event.key];
    if (steps) {
      byId("steps").value = count("steps") + steps;
      update();
    } else if (event.key.toLowerCase() === "e") {
      example();
    } else if (event.key.toLowerCase() === "m") {
      const mode = byId("draw-controls").elements.mode;
      mode.value = mode.value === "alone" ? "together" : "alone";
      update();
    }
  });

  showNames();
  update();
}

// One class's probability.
function bar(label) {
  const name = make("span", { class: "name" });
  const fill = make("div", { class: "fill" });
  const share = make("span", { class: "share" });
  const element = make("div", { class: "bar" }, name,
    make("div", { class: "track" }, fill), share);
  element.style.setProperty("--colour", COLOURS[label]);
  const set = (probability, row) => {
    const known = probability !== undefined;
    fill.style.width = `${100 * (probability ?? 0)}%`;
    share.textContent = known ? `${Math.round(100 * probability)} %` : "";
    element.classList.toggle("most", known && probability === Math.max(...row));
  };
  return { element, name, set };
}
