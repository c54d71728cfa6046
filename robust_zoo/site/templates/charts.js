"use strict";
// Draws every chart of a page from the Vega-Lite that lies beside it, and copies texts.

const dark = window.matchMedia("(prefers-color-scheme: dark)");

function drawn(element, spec) {
  const theme = dark.matches
    ? { background: "transparent", view: { stroke: "#555" }, axis: { labelColor: "#ddd", titleColor: "#ddd", gridColor: "#444", domainColor: "#888", tickColor: "#888" }, legend: { labelColor: "#ddd", titleColor: "#ddd" } }
    : { background: "transparent" };
  const whole = { ...spec, config: { ...(spec.config || {}), ...theme } };
  return window.vegaEmbed(element, whole, { actions: false, renderer: "svg" });
}

function specOf(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

// Those that are far down are drawn when they come near.
const seen = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      drawn(target, specOf(target.dataset.spec));
    }
  },
  { rootMargin: "400px" },
);

function drawAll() {
  for (const element of document.querySelectorAll(".chart[data-spec]")) {
    seen.unobserve(element);
    seen.observe(element);
  }
}

for (const button of document.querySelectorAll("button[data-copy]")) {
  button.addEventListener("click", async () => {
    const text = document.getElementById(button.dataset.copy).textContent;
    const told = document.querySelector(".copied");
    try {
      await navigator.clipboard.writeText(text);
      told.textContent = "copied";
    } catch {
      const range = document.createRange();
      range.selectNodeContents(document.getElementById(button.dataset.copy));
      window.getSelection().removeAllRanges();
      window.getSelection().addRange(range);
      told.textContent = "selected: press Ctrl+C";
    }
  });
}

dark.addEventListener("change", drawAll);
drawAll();
