const board = JSON.parse(document.getElementById("data").textContent);

// What a run costs, and how it is written.
const COSTS = {
  clip_s: ["encode, seconds per clip", (x) => si(x) + "s"],
  encode_s: ["encode, seconds of the run", (x) => si(x) + "s"],
  parameters: ["encoder parameters", si],
  flops: ["trainable FLOPs per clip", si],
  memory: ["peak memory, bytes", (x) => si(x) + "B"],
  saved: ["kept for the backward pass of a training step, bytes", (x) => si(x) + "B"],
};
const PAPERS = 3;  // numbers in one cell
const NARROW = 3;  // encoders of a table that leaves room beside it
const state = { section: 0, encoder: [], task: [], printed: true, column: 0, sort: 0, down: true, cost: "parameters" };

// --- the board's parts -----------------------------------------------------------------------------------------------

for (const [i, column] of board.columns.entries()) {
  column.index = i;
  column.title = [column.task, column.split, column.how, column.protocol, column.metric].filter(Boolean).join(", ");
  column.search = column.title.toLowerCase();
  column.cells = board.cells.filter((cell) => cell.column === i);
  column.scale = scale([
    ...column.cells.flatMap((cell) => [cell.value, ...cell.ci95, cell.chance]),
    ...column.cells.filter((cell) => cell.failed).map((cell) => cell.bounds[1]),
    ...column.printed.map((number) => number.value),
  ]);
}
for (const [i, cell] of board.cells.entries()) cell.index = i;
const link = (run) => `#${encodeURIComponent(run.name.toWellFormed())}`;

function glyph(column, { value, ci95, bounds, failed, chance, hollow }) {
  const x = (number) => percent(column.scale.at(number));
  const line = (name, from, to) => svg("line", { class: name, x1: x(from), x2: x(to), y1: "50%", y2: "50%" });
  return svg("svg", { class: "glyph", "aria-hidden": "true" },
    chance === null || chance === undefined ? null
      : svg("line", { class: "chance", x1: x(chance), x2: x(chance), y1: 0, y2: "100%" }),
    ci95 && ci95[0] !== null && ci95[1] !== null ? line("interval", ...ci95) : null,
    failed && bounds[1] !== null ? line("bound", value, bounds[1]) : null,
    value === null ? null : svg("circle", { class: hollow ? "hollow" : "dot", cx: x(value), cy: "50%", r: 3 }));
}

function columns() {
  const chosen = board.sections[state.section]?.columns ?? [];  // there is none where all was refused
  return chosen.map((i) => board.columns[i]).filter((column) => has(column.search, state.task));
}
function manyTasks() {  // more tasks than encoders, however both are filtered: a row per task is not as wide then
  const chosen = board.sections[state.section]?.columns ?? [];
  return chosen.length > unique(chosen.flatMap((i) => board.columns[i].cells.map((cell) => cell.encoder))).length;
}
const asked = (name) => has(name.toLowerCase(), state.encoder);

function rows(shown) {  // [{name, note, paper, of: column index -> what stands there}]
  const found = new Map();
  const place = (key, row) => found.get(key) ?? found.set(key, { ...row, of: new Map() }).get(key);
  for (const column of shown) {
    for (const cell of column.cells) {
      const { parameters } = cell.cost, note = parameters === null ? "" : `${si(parameters)} parameters`;
      const row = place(`e ${cell.encoder}`, { name: cell.encoder, note });
      row.of.set(column.index, [...(row.of.get(column.index) ?? []), cell]);
    }
    if (state.printed) for (const number of column.printed)
      place(`p ${number.source} ${number.row}`, { name: number.row, note: `printed, ${number.source}`, paper: true })
        .of.set(column.index, [number]);
  }
  const value = (row) => Math.max(-Infinity, ...(row.of.get(state.sort) ?? []).map((one) => one.value ?? -Infinity));
  const turn = state.down ? -1 : 1;
  const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  return [...found.values()].filter((row) => asked(row.name)).sort((a, b) =>
    (state.sort >= 0
      ? (value(a) === -Infinity) - (value(b) === -Infinity) || turn * order(value(a), value(b))
      : turn * order(a.name, b.name)) || order(a.name, b.name));
}

// --- the table -------------------------------------------------------------------------------------------------------

function render() {
  const shown = columns();
  if (!shown.some((column) => column.index === state.column)) state.column = shown[0]?.index ?? -1;
  if (state.sort >= 0) state.sort = state.column;
  const lines = rows(shown);
  const sorted = (by) => (state.sort === by ? (state.down ? "descending" : "ascending") : null);
  const sort = (by) => () => {
    state.down = state.sort === by ? !state.down : by >= 0;
    state.sort = by;
    if (by >= 0) state.column = by;
    render();
    $("board").querySelector(`[data-by="${by}"]`)?.focus();
  };
  const measured = lines.filter((row) => !row.paper), printed = lines.filter((row) => row.paper);
  const turned = manyTasks(), anyPrinted = printed.length > 0;
  const each = (column, what) => unique(column.cells.map(what)).join(" / ");
  const size = (cell) => whole(cell.n) + (cell.n_clusters === null ? "" : ` (${whole(cell.n_clusters)})`);
  const chances = shown.map((column) => el("td", null, each(column, (cell) => decimal(cell.chance))));
  const sizes = shown.map((column) => el("td", null, each(column, size)));
  const corner = el("th", { scope: "col", "aria-sort": sorted(-1) },
    el("button", { type: "button", "data-by": -1, onclick: sort(-1) }, el("b", null, "encoder")));
  const task = (column) => el("th", { scope: turned ? "row" : "col", "aria-sort": sorted(column.index) },
    el("button", { type: "button", "data-by": column.index, onclick: sort(column.index) },
      el("b", null, breakable(column.task)),
      el("small", null, [column.split, column.how].join(", ")),
      column.protocol && el("small", null, column.protocol),
      el("small", null, column.metric || "no public answers")));
  const encoder = (row) => el("th", { scope: turned ? "col" : "row" }, turned ? breakable(row.name) : row.name,
    row.note && el("small", null, row.note));
  const cell = (row, column) => el("td", null, (row.of.get(column.index) ?? []).map((one) =>
    (row.paper ? paper(column, one) : score(column, one))));
  const line = (head, cells) => el("tr", null, head, cells);
  const title = (text) => el("th", { scope: turned ? "col" : "row" }, text);
  $("board").classList.toggle("turned", turned);
  $("both").classList.toggle("aside", turned && measured.length <= NARROW);
  $("board").replaceChildren(...(turned ? [
    el("thead", null, line(el("th", { scope: "col" }, "task"),
      [measured.map(encoder), title("chance"), title("examples (videos)"), anyPrinted && title("papers print")])),
    el("tbody", null, shown.map((column, i) => line(task(column),
      [measured.map((row) => cell(row, column)), chances[i], sizes[i], anyPrinted && papers(printed, column)])))]
    : [
      el("thead", null, line(corner, shown.map(task))),
      el("tbody", null, lines.map((row) => el("tr", { class: row.paper && "printed" }, encoder(row),
        shown.map((column) => cell(row, column))))),
      el("tfoot", null, line(title("chance"), chances), line(title("examples (videos)"), sizes))]));
  $("board").querySelector(".score")?.setAttribute("tabindex", 0);
  const apart = shown.flatMap((column) => Object.entries(column.marks).map(([letter, differs]) =>
    el("li", null, `(${letter}) ${column.title}: ${differs}`)));
  const seen = shown.flatMap((column) => board.cells
    .filter((cell) => cell.column === column.index && cell.seen)
    .map((cell) => el("li", null,
      `${cell.encoder} was trained on ${cell.seen}, which shares videos with ${column.task}`)));
  $("seen").hidden = !seen.length;
  $("seen").querySelector("summary").textContent = `†: on data of the encoder's training (${seen.length})`;
  $("seen").querySelector("ul").replaceChildren(...seen);
  $("marks").hidden = !apart.length;
  $("marks").querySelector("summary").textContent =
    `Letters: another protocol, or other data, than the rest of a column (${apart.length})`;
  $("marks").querySelector("ul").replaceChildren(...apart);
  $("with-printed").hidden = !shown.some((column) => column.printed.length);
  $("count").textContent = `${many(measured.length, "encoder")}, ${many(shown.length, "task")}`;
  $("column").replaceChildren(...shown.map((column) => el("option", { value: column.index }, column.title)));
  $("column").value = state.column;
  one();
}

function score(column, cell) {
  const partial = [cell.failed ? `partial, at most ${decimal(cell.bounds[1])}` : cell.sizes, cell.shared]
    .filter(Boolean).join("; ");
  const value = cell.value === null ? "not scored" : decimal(cell.value);
  const seeds = cell.sd === null ? cell.pooled : `${cell.pooled}, sd ${decimal(cell.sd)}`;
  const told = [cell.encoder, column.title, value, range(cell.ci95), seeds, ranks(cell.ranks), partial,
    cell.mark && `differs: ${column.marks[cell.mark]}`, cell.seen && `trained on ${cell.seen}`];
  return el("button", { type: "button", class: "score", tabindex: -1,
    "aria-label": told.filter(Boolean).join(", "), onclick: () => show(cell.index) },
    el("span", { class: "top" }, el("small", null, ranks(cell.ranks)),
      el("span", null, cell.mark && `(${cell.mark}) `, el("b", null, value), cell.seen && "†")),
    el("small", null, range(cell.ci95)), seeds && el("small", null, seeds), glyph(column, cell),
    partial && el("small", { class: "partial" }, partial));
}

function paper(column, number) {
  return el("div", { title: [`table ${number.table}`, number.note].filter(Boolean).join(": ") },
    number.value.toFixed(1), glyph(column, { value: number.value, hollow: true }));
}

// What papers print of a task, the highest first, in one cell; the task's own figure has all of it.
function papers(rows, column) {
  const all = rows.flatMap((row) => (row.of.get(column.index) ?? []).map((number) => [row, number]));
  all.sort(([, a], [, b]) => b.value - a.value);
  return el("td", { class: "papers" }, all.slice(0, PAPERS).map(([row, number]) =>
    el("div", { title: [row.note, `table ${number.table}`, number.note].filter(Boolean).join(", ") },
      el("small", null, row.name), " ", number.value.toFixed(1))),
    all.length > PAPERS && el("small", null, `and ${all.length - PAPERS} more, under One task`));
}

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], j: [1, 0], k: [-1, 0] };

function walk(event) {  // arrow keys: to the next cell in that direction that has a button
  const step = event.ctrlKey || event.metaKey || event.altKey ? null : STEPS[event.key];
  if (!step) return;
  event.preventDefault();
  const [down, right] = step;
  const here = event.target.closest("td, th"), lines = [...$("board").rows];
  const stacked = [...here.querySelectorAll("button")], beside = stacked[stacked.indexOf(event.target) + down];
  if (down && beside) return beside.focus();
  let [row, place] = [lines.indexOf(here.parentNode), here.cellIndex];
  for (;;) {
    [row, place] = [row + down, place + right];
    const next = lines[row]?.cells[place];
    if (!next) return;
    const buttons = next.querySelectorAll("button");
    if (buttons.length) return buttons[down < 0 ? buttons.length - 1 : 0].focus();
  }
}
$("board").addEventListener("keydown", walk);
$("board").addEventListener("focusin", (event) => {  // Tab comes back to the cell that was left
  if (!event.target.classList.contains("score")) return;
  $("board").querySelector(".score[tabindex='0']")?.setAttribute("tabindex", -1);
  event.target.setAttribute("tabindex", 0);
});

// --- one task: its scores, and what they cost ------------------------------------------------------------------------

function one() {
  const column = board.columns[state.column];
  const cells = (column?.cells ?? []).filter((cell) => cell.value !== null && asked(cell.encoder));
  const papers = state.printed && column ? column.printed.filter((number) => asked(number.row)) : [];
  const lines = [...cells.map((cell) => ({ value: cell.value, line: measured(column, cell) })),
    ...papers.map((number) => ({ value: number.value, line: printed(column, number, cells[0]?.chance) }))];
  lines.sort((a, b) => b.value - a.value);
  $("forest").replaceChildren(...lines.map(({ line }) => line), column ? axis(column) : "");
  against(column, cells);
}

const named = (cell) => cell.encoder + (cell.mark && ` (${cell.mark})`);

function measured(column, cell) {
  return el("button", { type: "button", class: "row", title: named(cell), onclick: () => show(cell.index) },
    el("span", null, named(cell)), glyph(column, cell),
    el("span", null, el("b", null, decimal(cell.value)), el("small", null, range(cell.ci95))));
}
function printed(column, number, chance) {
  const title = `${number.row}: printed, ${number.source}, table ${number.table}`;
  return el("div", { class: "row still printed", title },
    el("span", null, number.row), glyph(column, { value: number.value, hollow: true, chance }),
    el("span", null, el("span", null, decimal(number.value)), el("small", null, "printed")));
}
function axis(column) {
  return el("div", { class: "row still", "aria-hidden": "true" }, el("span"),
    el("div", { class: "axis" }, column.scale.ticks.map((tick) =>
      el("span", { style: `left:${percent(column.scale.at(tick))}` }, String(tick)))), el("span"));
}

function against(column, cells) {  // scores over the chosen cost, with the runs that no other one beats in both
  const [label, write] = COSTS[state.cost];
  const known = cells.filter((cell) => cell.cost[state.cost]);
  const points = known.map((cell) => {
    const told = `${named(cell)}: ${decimal(cell.value)} (${range(cell.ci95)}), ${write(cell.cost[state.cost])}`;
    return { x: cell.cost[state.cost], y: cell.value, ci95: cell.ci95, name: named(cell), apart: cell.mark !== "",
      told, open: () => show(cell.index) };
  });
  points.sort((a, b) => a.x - b.x || b.y - a.y);
  let best = -Infinity;
  const front = points.filter((point) => !point.apart && point.y > best && ((best = point.y), true));
  for (const point of points) point.behind = !front.includes(point);
  const devices = unique(known.map((cell) => cell.device)), missing = cells.length - known.length;
  $("pareto").replaceChildren(points.length
    ? plot(points, { x: label, y: column.metric, write, log: true, steps: front, told: $("pareto-told") })
    : el("p", { class: "soft" }, "No run says what it costs."));
  $("pareto-told").textContent = !points.length ? "" : [
    missing && `${missing} of ${cells.length} runs are not shown: unknown, or features came from the store.`,
    state.cost.endsWith("_s") && devices.length > 1 && `Seconds are of several devices: ${devices.join("; ")}.`,
    "Blue: no run is both cheaper and better.",
    points.some((point) => point.apart) && "Rings: another protocol, or other data, than the rest.",
  ].filter(Boolean).join(" ");
}
