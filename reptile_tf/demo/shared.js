// What both tabs use: elements, colours, questions to the server.

// Okabe and Ito's colours, which colour-blind readers can tell apart.
export const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"];

export const byId = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// The answer to a question; null, and the reason shown, if there is none.
export async function ask(path, body) {
  let reason;
  try {
    const response = await fetch(path, body && {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    const answer = await response.json();
    reason = answer.error;
    if (response.ok) {
      byId("error").hidden = true;
      return answer;
    }
  } catch {
    reason = "The server does not answer: start it again.";
  }
  byId("error").textContent = reason;
  byId("error").hidden = false;
  return null;
}

// Asks one question at a time; of those made meanwhile the last one counts.
// Until its answer is there, what shows it is busy: it is not read out twice.
export class Latest {
  constructor(path, show, region) {
    Object.assign(this, { path, show, region, busy: false, next: null });
  }

  async ask(body, context) {
    if (this.busy) {
      this.next = [body, context];
      return;
    }
    this.busy = true;
    this.region.ariaBusy = "true";
    const answer = await ask(this.path, body);
    this.busy = false;
    if (answer) this.show(answer, context);
    if (this.next) {
      const next = this.next;
      this.next = null;
      this.ask(...next);
    } else {
      this.region.ariaBusy = "false";
    }
  }
}
