// Paper to draw on, with the picture that the network sees beside it.

import { make } from "./shared.js";

const PIXELS = 315; // Three times Omniglot's 105.
const PEN = 5 / 105; // Of the paper's side, as Omniglot's.
const SEEN = 28;
const FINEST = 0.4 / 105; // Less than this is no move.
const KEYBOARD_STEP = 0.04;
const CLEAR = ["Delete", "Backspace"]; // Of a Mac's keyboard.
const ARROWS = {
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
};

const onPaper = (value) =>
  Math.round(Math.min(1, Math.max(0, value)) * 1000) / 1000;

export class DrawingPad {
  // strokes: [x, y, x, y, ...] each, from 0 to 1.
  constructor(label, changed) {
    this.strokes = [];
    this.changed = changed;
    this.cursor = null; // The keyboard's pen: {x, y, down}.
    this.paper = make("canvas", {
      class: "paper", width: PIXELS, height: PIXELS, tabindex: 0,
      role: "application", "aria-label": `${label}: draw here`,
    });
    this.seen = make("canvas", {
      class: "seen", width: SEEN, height: SEEN, role: "img",
      "aria-label": `${label}: as the network sees it`,
    });
    const key = (text, name, action) => {
      const button = make("button", {
        type: "button", title: name, "aria-label": `${label}: ${name}` }, text);
      button.addEventListener("click", action);
      return button;
    };
    this.element = make("div", { class: "pad" }, this.paper, this.seen,
      make("div", { class: "keys" },
        key("undo", "take the last stroke back", () => this.undo()),
        key("clear", "clear", () => this.set([]))));
    this.listen();
    this.paint();
  }

  listen() {
    const paper = this.paper;
    paper.addEventListener("pointerdown", (event) => {
      // With Ctrl it is a Mac's click for the menu, which hides its end.
      if (event.button !== 0 || event.ctrlKey ||
          this.pointer !== undefined) return;
      event.preventDefault();
      paper.focus({ preventScroll: true });
      paper.setPointerCapture(event.pointerId);
      this.pointer = event.pointerId;
      this.cursor = null;
      this.strokes.push([]);
      this.extend(event);
    });
    paper.addEventListener("pointermove", (event) => {
      if (event.pointerId !== this.pointer) return;
      if (!event.buttons) {  // Lifted where nobody saw it.
        this.pointer = undefined;
        return;
      }
      const events = event.getCoalescedEvents?.() ?? [];
      for (const one of events.length ? events : [event]) this.extend(one);
    });
    for (const kind of ["pointerup", "pointercancel"]) {
      paper.addEventListener(kind, (event) => {
        if (event.pointerId === this.pointer) this.pointer = undefined;
      });
    }
    paper.addEventListener("keydown", (event) => this.press(event));
    paper.addEventListener("blur", () => {
      this.cursor = null;
      this.paint();
    });
  }

  extend(event) {
    const box = this.paper.getBoundingClientRect();
    this.add((event.clientX - box.left) / box.width,
             (event.clientY - box.top) / box.height);
  }

  add(x, y) {
    const stroke = this.strokes.at(-1);
    const moved = Math.hypot(x - stroke.at(-2), y - stroke.at(-1));
    if (moved < FINEST) return;
    stroke.push(onPaper(x), onPaper(y));
    this.paint();
    this.changed();
  }

  press(event) {
    const undo = (event.ctrlKey || event.metaKey) && event.key === "z";
    const own = event.key in ARROWS || event.key === " " ||
      CLEAR.includes(event.key) || undo;
    if (!own) return;
    event.preventDefault();
    if (undo) return this.undo();
    if (CLEAR.includes(event.key)) return this.set([]);
    this.cursor ??= { x: 0.5, y: 0.5, down: false };
    const pen = this.cursor;
    if (event.key === " ") {
      pen.down = !pen.down;
      if (pen.down) this.strokes.push([]);
    } else {
      const [dx, dy] = ARROWS[event.key];
      pen.x = onPaper(pen.x + dx * KEYBOARD_STEP);
      pen.y = onPaper(pen.y + dy * KEYBOARD_STEP);
    }
    if (pen.down) this.add(pen.x, pen.y);
    else this.paint();
  }

  undo() {
    this.set(this.strokes.slice(0, -1));
  }

  set(strokes) {
    this.load(strokes);
    this.changed();
  }

  // Of several pads at once, none of which tells of it.
  load(strokes) {
    this.strokes = strokes;
    this.cursor = null;
    this.pointer = undefined; // What it drew on is not there any more.
    this.paint();
  }

  paint() {
    const paper = this.paper.getContext("2d");
    paper.clearRect(0, 0, PIXELS, PIXELS);
    paper.lineWidth = PEN * PIXELS;
    paper.lineCap = paper.lineJoin = "round";
    paper.strokeStyle = "#1b1b1b";
    for (const stroke of this.strokes) {
      paper.beginPath();
      paper.moveTo(stroke[0] * PIXELS, stroke[1] * PIXELS);
      for (let i = 0; i < stroke.length; i += 2) {
        paper.lineTo(stroke[i] * PIXELS, stroke[i + 1] * PIXELS);
      }
      paper.stroke();
    }
    if (this.cursor) {
      paper.lineWidth = 4;
      paper.strokeStyle = this.cursor.down ? "#D55E00" : "#0072B2";
      paper.beginPath();
      paper.arc(this.cursor.x * PIXELS, this.cursor.y * PIXELS, 12, 0, 7);
      paper.stroke();
    }
  }

  // picture: 28 * 28 characters, 0 for ink and 1 for paper; none if undefined.
  show(picture) {
    const seen = this.seen.getContext("2d");
    seen.clearRect(0, 0, SEEN, SEEN);
    [...(picture ?? "")].forEach((pixel, i) => {
      if (pixel === "0") seen.fillRect(i % SEEN, Math.floor(i / SEEN), 1, 1);
    });
  }
}
