// The tabs, and what each shows.

import { ask, byId } from "./shared.js";
import { startDrawTab } from "./draw_tab.js";
import { startSineTab } from "./sine_tab.js";

function startTabs() {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const open = (chosen) => {
    for (const tab of tabs) {
      const own = tab === chosen;
      tab.setAttribute("aria-selected", own);
      tab.tabIndex = own ? 0 : -1;
      byId(tab.getAttribute("aria-controls")).hidden = !own;
    }
  };
  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => open(tab));
    tab.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowRight" && event.key !== "ArrowLeft") return;
      const other = tabs[(i + 1) % tabs.length];
      open(other);
      other.focus();
    });
  });
}

const about = await ask("/about");
if (about) {
  startTabs();
  startDrawTab(about);
  startSineTab(about);
}
