// --- classes: which are taken for which, how each scores, and what changed between two runs --------------------------

const Z = 1.959964;  // of 95 %
const LABELED = 40;  // classes of a matrix that has room for their names
const NEAR = 24;  // classes that a click shows around a cell
const FIRST = 20;  // pairs and classes shown at first

// Wilson's interval of a share, in percent, 95 %. Its n is that of the videos: examples of one video say less than so
// many videos would. https://doi.org/10.1080/01621459.1927.10502953
function wilson(right, n, videos) {
  if (!videos) return [null, null];
  const share = right / n, shrink = 1 + (Z * Z) / videos, middle = (share + (Z * Z) / (2 * videos)) / shrink;
  const half = (Z / shrink) * Math.sqrt((share * (1 - share)) / videos + (Z * Z) / (4 * videos * videos));
  return [Math.max(0, 100 * (middle - half)), Math.min(100, 100 * (middle + half))];
}

// Of each class that is annotated: {index, n, right, videos, taken: counts by predicted class}; -1 is a failed example.
function tally(targets, predicted, videos) {
  const found = new Map();
  for (const [i, target] of targets.entries()) {
    if (typeof target !== "number") continue;
    if (!found.has(target)) found.set(target, { index: target, n: 0, right: 0, seen: new Set(), taken: new Map() });
    const one = found.get(target), answer = predicted[i];
    one.n += 1;
    one.right += answer === target;
    one.seen.add(videos[i]);
    one.taken.set(answer, (one.taken.get(answer) ?? 0) + 1);
  }
  return [...found.values()].sort((a, b) => a.index - b.index)
    .map((one) => ({ ...one, score: (100 * one.right) / one.n, ci95: wilson(one.right, one.n, one.seen.size) }));
}

// Of each class how many examples are right here alone, and there alone; the surest change first, by McNemar's z.
function changes(targets, here, there) {
  const found = new Map();
  for (const [i, target] of targets.entries()) {
    if (typeof target !== "number") continue;
    if (!found.has(target)) found.set(target, { index: target, n: 0, better: 0, worse: 0 });
    const one = found.get(target), mine = here[i] === target, other = there[i] === target;
    one.n += 1;
    one.better += mine && !other;
    one.worse += other && !mine;
  }
  const sure = (one) => (one.better === one.worse ? 0
    : Math.abs(one.better - one.worse) / Math.sqrt(one.better + one.worse));
  const all = [...found.values()].map((one) =>
    ({ ...one, sure: sure(one), difference: (100 * (one.better - one.worse)) / one.n }));
  return all.sort((a, b) => b.sure - a.sure || Math.abs(b.difference) - Math.abs(a.difference) || a.index - b.index);
}

const ORDERS = {
  number: ["as numbered", () => (a, b) => a.index - b.index],
  name: ["by name", (name) => (a, b) => (name(a.index) < name(b.index) ? -1 : 1)],
  low: ["lowest score first", () => (a, b) => a.score - b.score || b.n - a.n || a.index - b.index],
  high: ["highest score first", () => (a, b) => b.score - a.score || b.n - a.n || a.index - b.index],
  many: ["most examples first", () => (a, b) => b.n - a.n || a.index - b.index],
};

// The average precision of each class, where an example may have several: [class, examples, precision].
function precisionsSection(precisions, name) {
  const table = el("div", { class: "wide per-class" });
  let order = "low", other = null;
  const all = precisions.map(([index, n, score]) => ({ index, n, score }));
  function draw(most = FIRST) {
    const difference = (one) => one.score - other.get(one.index);
    const sorted = [...all].sort(order === "changed"
      ? (a, b) => Math.abs(difference(b)) - Math.abs(difference(a)) || a.index - b.index : ORDERS[order][1](name));
    const head = ["class", "examples", "average precision", "", other && "beside the other run"];
    table.replaceChildren(el("table", null,
      el("thead", null, el("tr", null, head.map((text) => text !== null && el("th", { scope: "col" }, text)))),
      el("tbody", null, sorted.slice(0, most).map((one) => el("tr", null, el("th", { scope: "row" }, name(one.index)),
        el("td", null, whole(one.n)), el("td", null, decimal(one.score)),
        el("td", null, svg("svg", { class: "glyph", "aria-hidden": "true" },
          svg("line", { class: "frame", x1: 0, x2: "100%", y1: "50%", y2: "50%" }),
          svg("circle", { class: "dot", cx: percent(one.score / 100), cy: "50%", r: 3 }))),
        other && changeCell(difference(one)))))), more(sorted, most, draw));
  }
  const { choice, offer } = ordering((chosen) => { order = chosen; draw(); }, "largest change first");
  function compare(one) {  // {precisions}, or null for none
    other = one && new Map(one.precisions.map(([index, , score]) => [index, score]));
    order = offer(Boolean(other), order);
    draw();
  }
  compare(null);
  const section = el("section", { id: "classes" },
    el("div", { class: "bar" }, el("h2", null, "Classes"), choice), table);
  return { section, compare };
}

const changeCell = (difference) => el("td", { class: difference > 0 ? "up" : difference < 0 ? "down" : null },
  `${difference > 0 ? "+" : ""}${decimal(difference)}`);
const more = (sorted, most, draw) => (sorted.length > most ? el("button", { type: "button", class: "plain",
  onclick: () => draw(Infinity) }, `Show all ${whole(sorted.length)} classes`) : "");

// A choice of the order of the classes; `offer` offers that by change, or not, and says what is chosen then.
function ordering(choose, changed) {
  const choice = el("select", { id: "class-order", "aria-label": "Order of the classes",
    onchange: (event) => choose(event.target.value) });
  function offer(compared, order) {
    choice.replaceChildren(...[compared && ["changed", [changed]], ...Object.entries(ORDERS)].filter(Boolean)
      .map(([key, [label]]) => el("option", { value: key }, label)));
    choice.value = compared ? "changed" : order === "changed" ? "low" : order;
    return choice.value;
  }
  return { choice, offer };
}

// The section; `only` shows the samples of one class, or of one taken for another, and `compare` draws the changes.
function classesSection(videos, { right: targets, predicted }, name, only) {
  const all = tally(targets, predicted, videos);
  if (!all.length) return null;
  const pairs = all.flatMap((one) => [...one.taken].filter(([answer]) => answer !== one.index)
    .map(([answer, times]) => ({ one, answer, times })))
    .sort((a, b) => b.times - a.times || b.times / b.one.n - a.times / a.one.n || a.one.index - b.one.index);
  const answered = (answer) => (answer < 0 ? "failed" : name(answer));
  const { figure, point } = matrix(all, predicted, name, answered, only);

  const list = el("ol", { class: "pairs" });
  const pair = ({ one, answer, times }) => el("li", null, el("button", { type: "button", class: "link",
    onclick: () => only(one.index, answer), onfocus: () => point(one.index, answer),
    onmouseenter: () => point(one.index, answer) },
    el("span", null, name(one.index), el("span", { class: "soft" }, " taken for "), answered(answer)),
    el("span", null, `${whole(times)} of ${whole(one.n)}`)));
  const table = el("div", { class: "wide per-class" });
  let order = "low", other = null;

  function draw(most = FIRST) {
    const changed = other && new Map(changes(targets, predicted, other.predicted)
      .map((one, i) => [one.index, { ...one, i }]));
    const sorted = [...all].sort(order === "changed"
      ? (a, b) => changed.get(a.index).i - changed.get(b.index).i : ORDERS[order][1](name));
    const compared = changed ? [`beside ${other.title}`, "better / worse"] : [];
    const head = ["class", "examples", "score", "95 % interval", ...compared, "most often taken for"];
    const x = (share) => percent(share / 100);
    const row = (one) => {
      const [worst] = [...one.taken].filter(([answer]) => answer !== one.index).sort((a, b) => b[1] - a[1]);
      const change = changed?.get(one.index);
      return el("tr", null, el("th", { scope: "row" },
        el("button", { type: "button", class: "link", onclick: () => only(one.index, null) }, name(one.index))),
        el("td", null, whole(one.n)), el("td", null, decimal(one.score)),
        el("td", null, el("span", null, range(one.ci95)), svg("svg", { class: "glyph", "aria-hidden": "true" },
          svg("line", { class: "frame", x1: 0, x2: "100%", y1: "50%", y2: "50%" }),
          svg("line", { class: "interval", x1: x(one.ci95[0]), x2: x(one.ci95[1]), y1: "50%", y2: "50%" }),
          svg("circle", { class: "dot", cx: x(one.score), cy: "50%", r: 3 }))),
        change && changeCell(change.difference),
        change && el("td", null, `${whole(change.better)} / ${whole(change.worse)}`),
        el("td", null, worst ? `${answered(worst[0])} (${whole(worst[1])})` : "–"));
    };
    table.replaceChildren(el("table", null,
      el("thead", null, el("tr", null, head.map((text) => el("th", { scope: "col" }, text)))),
      el("tbody", null, sorted.slice(0, most).map(row))), more(sorted, most, draw));
  }
  const { choice, offer } = ordering((chosen) => { order = chosen; draw(); }, "surest change first");
  function compare(one) {  // {predicted, title}, or null for none
    other = one;
    order = offer(Boolean(other), order);
    draw();
  }
  compare(null);
  list.append(...pairs.slice(0, FIRST).map(pair));
  const section = el("section", { id: "classes" }, el("h2", null, "Classes"),
    el("div", { class: "pair" }, figure,
      titled(pairs.length ? "Most often taken for another" : "No example is taken for another class", list)),
    el("div", { class: "bar" }, el("h3", null, "Each class"), choice),
    el("p", { class: "soft" }, "Score: right by the first answer. The interval is Wilson's, over the class's videos."),
    table);
  return { section, compare };
}

// The matrix on a canvas: a row is what is right, a column what was answered; a click, or Enter, looks closer, and then
// shows the samples of a cell. `point` puts the cursor on a cell.
function matrix(all, predicted, name, answered, only) {
  const used = unique([...all.map((one) => one.index), ...all.flatMap((one) => [...one.taken.keys()])]);
  const known = new Map(all.map((one) => [one.index, one]));
  const empty = (index) => ({ index, n: 0, right: 0, score: 101, taken: new Map() });
  const classes = used.filter((index) => index >= 0).map((index) => known.get(index) ?? empty(index));
  const failed = used.includes(-1);
  let order = [], place = new Map(), from = null, size = 0, cursor = null, scheme = "number";
  const canvas = el("canvas", { tabindex: 0, role: "img", "aria-describedby": "matrix-told",
    "aria-label": `Confusion matrix of ${whole(classes.length)} classes; arrow keys move, Enter looks closer` });
  const told = el("p", { class: "soft told", id: "matrix-told", "aria-live": "polite" });
  const back = el("button", { type: "button", class: "plain", onclick: () => look(null) }, "All classes");
  const choice = el("select", { "aria-label": "Order of the matrix", onchange: (event) => {
    scheme = event.target.value;
    arrangeBy();
  } }, ["number", "name", "low"].map((key) => el("option", { value: key }, ORDERS[key][0])));
  const columns = () => size + (failed ? 1 : 0);  // the failed stand at the end, however close one looks
  const answerAt = (column) => (column >= size ? -1 : order[from.column + column]?.index);

  function arrangeBy() {
    order = [...classes].sort(ORDERS[scheme][1](name));
    place = new Map(order.map((one, i) => [one.index, i]));
    look(null);
  }
  function look(around) {  // at all, or at the classes around a cell
    size = around ? Math.min(NEAR, order.length) : order.length;
    const start = (middle) => Math.max(0, Math.min(order.length - size, middle - Math.floor(size / 2)));
    from = around ? { row: start(around.row), column: start(around.column) } : { row: 0, column: 0 };
    cursor = null;
    back.hidden = !around || size === order.length;
    draw();
  }
  function layout() {
    const width = Math.max(240, Math.min(canvas.parentNode?.clientWidth || 560, 620)), named = size <= LABELED;
    const longest = Math.max(...order.map((one) => name(one.index).length), failed ? 6 : 0);
    const gutter = named ? Math.min(150, width * 0.3, 16 + 6.5 * longest) : 4;
    const cell = Math.min(48, (width - gutter - 2) / columns());
    return { width: gutter + cell * columns() + 2, height: Math.round(gutter + cell * size + 2), gutter, cell, named };
  }
  function draw() {
    const { width, height, gutter, cell, named } = layout(), scale = window.devicePixelRatio || 1;
    const style = getComputedStyle(document.documentElement);
    const color = (key) => style.getPropertyValue(`--${key}`).trim();
    [canvas.width, canvas.height] = [width * scale, height * scale];
    Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    pen.fillStyle = color("wash");
    pen.fillRect(gutter, gutter, cell * columns(), cell * size);
    for (let row = 0; row < size; row++) {
      const one = order[from.row + row];
      for (const [answer, times] of one.taken) {
        const column = answer < 0 ? size : place.get(answer) - from.column;
        if (answer >= 0 && (column < 0 || column >= size)) continue;
        pen.globalAlpha = 0.2 + 0.8 * Math.sqrt(times / one.n);
        pen.fillStyle = color(answer === one.index ? "blue" : "red");
        pen.fillRect(gutter + column * cell, gutter + row * cell, Math.max(1.5, cell - 0.5), Math.max(1.5, cell - 0.5));
        pen.globalAlpha = 1;
        if (cell < 16) continue;
        pen.fillStyle = Math.sqrt(times / one.n) > 0.5 ? color("paper") : color("ink");
        pen.font = "11px system-ui, sans-serif";
        [pen.textAlign, pen.textBaseline] = ["center", "middle"];
        pen.fillText(String(times), gutter + (column + 0.5) * cell, gutter + (row + 0.5) * cell, cell - 2);
      }
    }
    if (named) names(pen, gutter, cell, color("ink"));
    if (cursor) {
      pen.strokeStyle = color("ink");
      pen.lineWidth = 2;
      const side = Math.max(cell, 6), edge = (place) => gutter + (place + 0.5) * cell - side / 2;
      pen.strokeRect(edge(cursor.column), edge(cursor.row), side, side);
    }
    say();
  }
  function names(pen, gutter, cell, ink) {
    pen.fillStyle = ink;
    pen.font = `${Math.max(8, Math.min(12, cell * 0.9))}px system-ui, sans-serif`;
    pen.textBaseline = "middle";
    const letters = Math.max(6, Math.floor(gutter / 5.6));
    const rows = distinct(Array.from({ length: size }, (_, i) => name(order[from.row + i].index)), letters);
    const heads = distinct(Array.from({ length: columns() }, (_, i) => answered(answerAt(i))), letters);
    pen.textAlign = "right";
    for (const [i, text] of rows.entries()) pen.fillText(text, gutter - 4, gutter + (i + 0.5) * cell, gutter - 6);
    pen.textAlign = "left";
    for (const [i, text] of heads.entries()) {
      pen.save();
      pen.translate(gutter + (i + 0.5) * cell, gutter - 4);
      pen.rotate(-Math.PI / 2);
      pen.fillText(text, 0, 0, gutter - 6);
      pen.restore();
    }
  }
  function say() {
    const close = size <= LABELED ? "a click shows the samples of a cell" : "a click looks closer";
    if (!cursor) {
      told.textContent = "Row: what is right; column: what was answered. Blue: right, orange: wrong. "
        + `${whole(order.length)} classes; ${close}.`;
      return;
    }
    const one = order[from.row + cursor.row], answer = answerAt(cursor.column), times = one.taken.get(answer) ?? 0;
    told.textContent = `${name(one.index)}, ${answer === one.index ? "right" : `taken for ${answered(answer)}`}: `
      + `${whole(times)} of ${whole(one.n)}`;
  }
  function cellAt(event) {
    const { gutter, cell } = layout();
    const column = Math.floor((event.offsetX - gutter) / cell), row = Math.floor((event.offsetY - gutter) / cell);
    return row >= 0 && row < size && column >= 0 && column < columns() ? { row, column } : null;
  }
  function enter() {
    if (!cursor) return;
    const row = from.row + cursor.row, answer = answerAt(cursor.column);
    if (size > LABELED) look({ row, column: answer < 0 ? row : from.column + cursor.column });
    else only(order[row].index, answer);
  }
  function point(target, answer) {
    const row = place.get(target) - from.row, column = answer < 0 ? size : place.get(answer) - from.column;
    if (row < 0 || row >= size || column < 0 || column >= columns()) return;
    cursor = { row, column };
    draw();
  }
  canvas.addEventListener("mousemove", (event) => { cursor = cellAt(event) ?? cursor; draw(); });
  canvas.addEventListener("click", (event) => { cursor = cellAt(event); enter(); });
  canvas.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (step && !event.ctrlKey && !event.metaKey && !event.altKey) {
      cursor = !cursor ? { row: 0, column: 0 } : { row: Math.max(0, Math.min(size - 1, cursor.row + step[0])),
        column: Math.max(0, Math.min(columns() - 1, cursor.column + step[1])) };
      draw();
    } else if (event.key === "Enter") enter();
    else if (event.key === "Escape" && !back.hidden) look(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  arrangeBy();
  const holder = el("div", null, canvas);
  let width = 0;
  new ResizeObserver(([{ contentRect }]) => {
    if (contentRect.width !== width) [width] = [contentRect.width, draw()];
  }).observe(holder);
  const caption = el("figcaption", null, el("b", null, "Confusion"), back, choice);
  return { figure: el("figure", { class: "matrix" }, caption, holder, told), point };
}
