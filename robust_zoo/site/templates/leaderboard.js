"use strict";
// Sorting, filtering, choosing columns and comparing; all of it is in the address, so that a view can be sent.

const models = JSON.parse(document.getElementById("data").textContent);
const form = document.getElementById("filters");
const boxes = [...form.querySelectorAll("input[name=columns]")];
const usualColumns = boxes.filter((box) => box.defaultChecked).map((box) => box.value).join(",");
const TEXTS = ["name", "architecture", "defense", "paper", "role", "license"];
const MOST_COMPARED = 4;
const tables = [];
let restoring = false;

function percent(value) {
  return value === null ? "" : `${(100 * value).toFixed(2)}%`;
}

function chosen() {
  return new Set([...document.querySelectorAll("td.choose input:checked")].map((box) => Number(box.value)));
}

// ---- state in the address

function stateNow() {
  const state = new URLSearchParams();
  for (const name of ["q", "dataset_name", "norm", "defense", "role", "epsilon", "parameters"]) {
    if (form.elements[name].value) state.set(name, form.elements[name].value);
  }
  const columns = boxes.filter((box) => box.checked).map((box) => box.value).join(",");
  if (columns !== usualColumns) state.set("columns", columns);
  for (const { key, table, names } of tables) {
    const [order] = table.order();
    if (order && !(names[order[0]] === "rank" && order[1] === "asc")) {
      state.set(`sort-${key}`, `${names[order[0]]}:${order[1]}`);
    }
  }
  const compared = [...chosen()].map((place) => models[place].page);
  compared.forEach((page) => state.append("vs", page.replace(/^models\/|\.html$/g, "")));
  return state;
}

function remember() {
  if (restoring) return;
  const text = stateNow().toString();
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}

function restore() {
  restoring = true;
  const state = new URLSearchParams(location.hash.slice(1));
  for (const name of ["q", "dataset_name", "norm", "defense", "role", "epsilon", "parameters"]) {
    form.elements[name].value = state.get(name) || "";
  }
  const columns = state.has("columns") ? new Set(state.get("columns").split(",")) : null;
  for (const box of boxes) box.checked = columns ? columns.has(box.value) : box.defaultChecked;
  for (const { key, table, names } of tables) {
    const [name, direction] = (state.get(`sort-${key}`) || "rank:asc").split(":");
    const column = names.indexOf(name);
    if (column >= 0) table.order([[column, direction === "desc" ? "desc" : "asc"]]);
  }
  const compared = new Set(state.getAll("vs").slice(0, MOST_COMPARED));
  for (const { table } of tables) {
    for (const box of table.column(0).nodes().toArray().map((cell) => cell.querySelector("input"))) {
      box.checked = compared.has(models[box.value].page.replace(/^models\/|\.html$/g, ""));
    }
  }
  showColumns();
  filter();
  compare();
  restoring = false;
}

// ---- filters and columns

function fits(model) {
  const value = (name) => form.elements[name].value;
  for (const name of ["dataset_name", "norm", "defense", "role"]) {
    if (value(name) && String(model[name]) !== value(name)) return false;
  }
  if (value("epsilon") && !(model.epsilon !== null && model.epsilon <= Number(value("epsilon")) * (1 + 1e-9))) return false;
  if (value("parameters") && !(model.parameters <= Number(value("parameters")))) return false;
  const words = value("q").toLowerCase().split(/\s+/).filter(Boolean);
  const text = [model.name, model.architecture, model.defense, model.paper, model.dataset, model.threat, model.license].join(" ").toLowerCase();
  return words.every((word) => text.includes(word));
}

function filter() {
  const fitting = models.map(fits);
  let count = 0;
  for (const { table, places, section } of tables) {
    table.search.fixed("filters", (text, data, index) => fitting[places[index]]);
    table.draw();
    const here = places.filter((place) => fitting[place]).length;
    section.hidden = here === 0;
    count += here;
  }
  document.getElementById("count").textContent = `${count} of ${models.length} models`;
  remember();
}

function showColumns() {
  const shown = new Set(["rank", "name", ...boxes.filter((box) => box.checked).map((box) => box.value)]);
  for (const { table, names } of tables) {
    names.forEach((name, index) => {
      if (name) table.column(index).visible(shown.has(name), false);
    });
    table.columns.adjust();
  }
  remember();
}

// ---- comparison

const FACTS = [
  ["dataset", "measured on", (model) => model.dataset],
  ["threat", "threat model", (model) => model.threat],
  ["clean", "clean", (model) => `${percent(model.clean)} (${model.clean_interval})`],
  ["worst", "worst case", (model) => (model.worst_case === null ? "" : `${percent(model.worst_case)} (${model.worst_case_interval})`)],
  ["certified", "certified", (model) => (model.certified === null ? "" : `${percent(model.certified)}, ${model.certified_by}`)],
  ["attacks", "attacks", (model) => Object.entries(model.attacks).map(([name, value]) => `${name.replace(/ \d+$/, "")} ${percent(value)}`).join(", ")],
  ["union", "union", (model) => percent(model.union)],
  ["corruptions", "corruptions", (model) => percent(model.corruptions)],
  ["n", "n", (model) => model.n.toLocaleString("en")],
  ["architecture", "architecture", (model) => model.architecture],
  ["parameters", "parameters", (model) => model.parameters.toLocaleString("en")],
  ["defense", "defense", (model) => `${model.defense} ${model.paper}`],
  ["license", "license", (model) => model.license],
  ["checks", "failed checks", (model) => model.failed_checks.join(", ") || "none"],
  ["load", "how to load", (model) => model.load],
];

function cell(kind, text, row) {
  const made = document.createElement(kind);
  made.textContent = text;
  row.append(made);
  return made;
}

function compare() {
  const places = [...chosen()];
  const panel = document.getElementById("comparison");
  const full = places.length >= MOST_COMPARED;
  for (const { table } of tables) {
    for (const box of table.column(0).nodes().toArray().map((node) => node.querySelector("input"))) {
      box.disabled = full && !box.checked;
    }
  }
  panel.hidden = places.length < 2;
  remember();
  if (panel.hidden) return;
  const compared = places.map((place) => models[place]);
  const table = document.getElementById("compared");
  table.replaceChildren();
  const head = table.createTHead().insertRow();
  cell("th", "", head);
  for (const model of compared) {
    const link = document.createElement("a");
    link.href = model.page;
    link.textContent = model.name;
    const heading = cell("th", "", head);
    heading.scope = "col";
    heading.append(link);
  }
  const body = table.createTBody();
  for (const [, label, show] of FACTS) {
    const texts = compared.map(show);
    if (texts.every((text) => text === "")) continue;
    const row = body.insertRow();
    cell("th", label, row).scope = "row";
    texts.forEach((text) => cell("td", text, row));
  }
  const spec = specOf("curves");
  const values = compared.flatMap((model) => model.curve.map((point) => ({ model: model.name, dash: model.name, ...point })));
  const replace = (part) => {
    if (part && part.name === "curves") part.values = values;
  };
  replace(spec.data);
  (spec.layer || []).forEach((layer) => replace(layer.data));
  drawn(document.getElementById("compared-curves"), spec);
}

// ---- start

async function start() {
  const source = URL.createObjectURL(new Blob([window.DATATABLES], { type: "text/javascript" }));
  const { default: DataTable } = await import(source);
  for (const element of document.querySelectorAll("table.leaderboard")) {
    const headings = [...element.tHead.rows[0].cells];
    const names = headings.map((heading) => heading.dataset.name || "");
    const places = [...element.tBodies[0].rows].map((row) => Number(row.dataset.place));
    const hidden = names.map((name, index) => (headings[index].classList.contains("hidden") ? index : -1)).filter((index) => index >= 0);
    element.querySelectorAll(".hidden").forEach((part) => part.classList.remove("hidden"));
    const table = new DataTable(element, {
      paging: places.length > 60,
      pageLength: 50,
      autoWidth: false,
      order: [[names.indexOf("rank"), "asc"]],
      columnDefs: [
        { targets: 0, orderable: false },
        { targets: hidden, visible: false },
        { targets: TEXTS.map((name) => names.indexOf(name)), type: "string" },
      ],
      layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: places.length > 60 ? "paging" : null },
    });
    table.on("order", remember);
    element.addEventListener("change", (event) => {
      if (event.target.matches("td.choose input")) compare();
    });
    tables.push({ key: element.dataset.key, table, names, places, section: element.closest("section") });
  }
  form.addEventListener("input", (event) => (event.target.name === "columns" ? showColumns() : filter()));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => {
    location.hash = "";
    setTimeout(restore);
  });
  document.getElementById("clear").addEventListener("click", () => {
    for (const { table } of tables) table.column(0).nodes().toArray().forEach((node) => (node.querySelector("input").checked = false));
    compare();
  });
  window.addEventListener("hashchange", restore);
  restore();
  document.documentElement.dataset.ready = "yes";
}

start();
