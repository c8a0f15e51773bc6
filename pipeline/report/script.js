"use strict";
// Draws the charts, follows dark and light, and makes tables sortable and searchable.
const root = document.documentElement;
const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
let printing = false;

const isDark = () => !printing && (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);

function themed() {
  const [ink, grid] = isDark() ? ["#e6edf3", "#3a424b"] : ["#1b1f24", "#d0d7de"];
  const axis = { gridcolor: grid, zerolinecolor: grid, linecolor: grid };
  return { paper: "rgba(0,0,0,0)", ink, axis };
}

// Return the layout of a chart in the colours of the page.
function dressed(layout) {
  const { paper, ink, axis } = themed();
  return {
    margin: { l: 56, r: 12, t: 24, b: 48 }, height: 360, legend: { orientation: "h", y: -0.25 }, hovermode: "closest",
    ...layout,
    paper_bgcolor: paper, plot_bgcolor: paper, font: { color: ink, family: "system-ui, sans-serif" },
    xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
  };
}

function draw(figure, name) {
  const plot = figure.querySelector(".plot");
  const { data, layout } = JSON.parse(figure.querySelector(`script.${name}`).textContent);
  figure.dataset.shown = name;
  return Plotly.react(plot, data, dressed(layout), { responsive: true, displayModeBar: false });
}

const redraw = () => document.querySelectorAll("figure.chart").forEach((figure) => draw(figure, figure.dataset.shown || "figure"));

document.querySelectorAll(".choice button").forEach((button) => button.addEventListener("click", () => {
  button.parentElement.querySelectorAll("button").forEach((each) => each.setAttribute("aria-pressed", String(each === button)));
  draw(button.closest("figure"), button.dataset.show);
}));

document.getElementById("theme").addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  redraw();
});
prefersDark.addEventListener("change", redraw);

// On paper all is light, and what is folded away is open.
let closed = [];
window.addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")].filter((each) => !each.matches(".facts, figure details"));
  closed.forEach((each) => { each.open = true; });
  printing = true;
  root.dataset.before = root.dataset.theme || "";
  root.dataset.theme = "light";
  redraw();
});
window.addEventListener("afterprint", () => {
  closed.forEach((each) => { each.open = false; });
  printing = false;
  if (root.dataset.before) root.dataset.theme = root.dataset.before; else delete root.dataset.theme;
  redraw();
});

const inOrder = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

// Sort a table by a column: numbers by value, what is not known last.
function sort(header) {
  const table = header.closest("table");
  const place = [...header.parentElement.children].indexOf(header);
  const numbers = !!table.querySelector(`tbody td:nth-child(${place + 1})[data-value]`);
  const now = header.getAttribute("aria-sort");
  const direction = now === "none" ? (numbers ? "descending" : "ascending") : now === "ascending" ? "descending" : "ascending";
  table.querySelectorAll("th").forEach((each) => each.setAttribute("aria-sort", "none"));
  header.setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1;
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [row, row.cells[place]]);
  rows.sort(([, a], [, b]) => {
    if (!numbers) return sign * inOrder.compare(a.textContent, b.textContent);
    if (!a.dataset.value || !b.dataset.value) return (a.dataset.value ? 0 : 1) - (b.dataset.value ? 0 : 1);
    return sign * (Number(a.dataset.value) - Number(b.dataset.value));
  });
  body.append(...rows.map(([row]) => row));
}

document.querySelectorAll("th").forEach((header) => header.querySelector("button").addEventListener("click", () => sort(header)));

document.querySelectorAll(".search input").forEach((input) => input.addEventListener("input", () => {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of input.closest(".table").querySelectorAll("tbody tr")) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
}));

redraw();
root.dataset.ready = "true";
