// --- a run -----------------------------------------------------------------------------------------------------------

const loaded = document.readyState === "loading"
  ? new Promise((done) => document.addEventListener("DOMContentLoaded", done)) : Promise.resolve();

async function unpack(id) {  // what Python's zlib and base64 have packed, from its script element
  await loaded;  // the packed runs stand at the end of the file
  const packed = Uint8Array.from(atob($(id).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

const MOST = 10;  // reasons of failures
const ok = (canary) => canary.filter((check) => check.outcome === "ok").length;

let keys = null;  // what they do in the run that is open
let opened = 0;  // a run that takes long to unpack does not come over one that was opened after it

async function show(index, which = 0) {
  const cell = board.cells[index], column = board.columns[cell.column], chosen = cell.runs[which], turn = ++opened;
  const [run, samples] = await Promise.all([unpack(chosen.id), unpack(chosen.samples)]);
  if (turn !== opened) return;
  const { result } = run, { task, data, provenance } = result, { canary, ...encoder } = result.encoder;
  const { language_model, canary: measured, ...adapter } = result.adapter;
  const close = el("button", { type: "button", class: "plain", onclick: () => $("run").close() }, "Close");
  const newest = cell.runs.length > 1 ? `${which ? "one" : "newest"} of ${cell.pooled}, whose mean the board shows`
    : cell.times > 1 && `newest of ${cell.times}`;
  const where = [column.split, column.how, column.protocol, chosen.name, newest];
  const own = read(samples, run), list = samplesSection(samples, run, own);
  const name = (number) => className(samples, number);
  const classes = own.predicted ? classesSection(samples.videos, own, name, list.only)
    : run.precisions?.length ? precisionsSection(run.precisions, name) : null;
  const jump = (title, section) => section && el("button", { type: "button", class: "link",
    onclick: () => section.scrollIntoView() }, title);
  $("run").replaceChildren(
    el("header", null, el("div", null,
      el("h2", { id: "run-name" }, `${cell.encoder} on ${column.task}`),
      el("div", { class: "soft" }, where.filter(Boolean).join(", ")),
      cell.mark && el("div", { class: "soft" },
        `(${cell.mark}) unlike the rest of its column: ${column.marks[cell.mark]}`),
      cell.seen && el("div", { class: "soft" },
        `† trained on ${cell.seen}, which shares videos with ${column.task}`),
      el("nav", { "aria-label": "Parts of this run" },
        jump("Classes", classes?.section), jump("Samples", list.section))), close),
    el("div", null,
      cell.runs.length > 1 && el("div", { class: "bar seeds", role: "group", "aria-label": "Runs of this cell" },
        cell.runs.map((one, i) => el("button", { type: "button", class: "plain", "aria-pressed": String(i === which),
          onclick: () => show(index, i) }, `${place(one)}: ${decimal(one.value)}`))),
      el("div", { class: "facts" }, scores(result), costs(result), beside(cell.beside), controls(result),
        shared(result), failures(result, Object.values(run.failures)), sweep(result.selection)),
      settings("Configuration", flat({ adapter, encoder, protocol: task.protocol })),
      languageModel(language_model, measured),
      settings("Provenance", flat({ ...provenance, fingerprint: data.fingerprint, score: task.score,
        version: task.version, protocol_sha256: task.protocol_sha256, predictions_sha256: data.predictions_sha256 })),
      canary?.length && settings(`Canary: ${ok(canary)} of ${canary.length} ok`,
        canary.map((check) => [`${check.check}: ${check.outcome}`, check.detail])),
      comparison(chosen, samples, own, (other) => {
        classes?.compare(other?.predicted || other?.precisions ? other : null);
        list.compare(other);
      }),
      classes?.section, list.section));
  keys = list.key;
  if (!$("run").open) $("run").showModal();
  $("run").scrollTop = 0;
  close.focus({ preventScroll: true });
  history.replaceState(null, "", link(chosen));
}
document.addEventListener("keydown", (event) => {  // wherever the focus is, as on nothing after a click
  if ($("run").open && !event.defaultPrevented) keys(event);
});
$("run").addEventListener("close", () => history.replaceState(null, "", "#"));

function place({ seed, fold }) {  // of a run among those of its cell
  return [fold && `fold ${fold}`, `seed ${seed}`].filter(Boolean).join(", ");
}

// A choice among the other runs on the same samples; `put` gets what `read` says of the chosen one, with its title.
function comparison(chosen, samples, own, put) {
  const title = (cell, run) => [cell.encoder, cell.runs.length > 1 && place(run)].filter(Boolean).join(", ");
  const others = board.cells.flatMap((cell) => cell.runs
    .filter((run) => run.samples === chosen.samples && run !== chosen)
    .map((run) => ({ run, cell, title: title(cell, run) })));
  if (!others.length) return null;
  const label = ({ run, cell, title }) => `${title}: ${board.columns[cell.column].how}, ${decimal(run.value)}`;
  others.sort((a, b) => (label(a) < label(b) ? -1 : 1));
  const said = el("output", { class: "soft", "aria-live": "polite" });
  async function choose(event) {
    const other = others[event.target.value];
    if (!other) {
      said.textContent = "";
      return put(null);
    }
    const run = await unpack(other.run.id);
    const theirs = { ...read(samples, run), precisions: run.precisions, title: other.title };
    const known = own.outcome.map((one, i) => [one === "right", theirs.outcome[i] === "right"]);
    const times = (here, there) => whole(known.filter(([a, b]) => a === here && b === there).length);
    put(theirs);
    const alone = `here alone: ${times(true, false)}; there alone: ${times(false, true)}`;
    said.textContent = own.values && theirs.values ? `Right in both: ${times(true, true)}; ${alone}.` : "";
  }
  return el("div", { class: "bar" }, el("label", null, "Beside another run on the same samples ",
    el("select", { id: "beside", onchange: choose }, el("option", { value: "" }, "none"),
      others.map((one, i) => el("option", { value: i }, label(one))))), said);
}

function titled(title, ...children) {
  return el("div", null, el("h3", null, title), children);
}
function numbers(head, lines) {
  return el("table", null,
    head && el("thead", null, el("tr", null, head.map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", null, lines.map(([name, ...values]) =>
      el("tr", null, el("th", { scope: "row" }, name), values.map((value) => el("td", null, value))))));
}
function settings(title, lines) {
  return el("details", null, el("summary", null, title), el("table", { class: "keys" }, el("tbody", null,
    lines.map(([key, value]) =>
      el("tr", null, el("th", { scope: "row" }, key), el("td", null, el("code", null, plain(value))))))));
}
function languageModel(model, measured = []) {  // which one was asked, and its first prompt as it reads it
  if (!model) return null;
  const { prompt, ...facts } = model;
  const title = `Language model: ${model.name} ${model.sha256?.slice(0, 8) ?? "served"}`;
  const details = settings(title,
    [...flat(facts), ...measured.map((check) => [`${check.check}: ${check.outcome}`, check.detail])]);
  details.append(el("h3", null, "Prompt of the first example"), el("pre", { "data-name": "prompt" }, prompt));
  return details;
}
function scores({ scores, chance }) {
  if (!scores.length) return titled("Scores", el("p", null, "No example has a public answer."));
  const size = (one) => `${whole(one.n)} (${whole(one.n_clusters)})`;
  return titled("Scores", numbers(["metric", "score", "95 % interval", "n (videos)"], [
    ...scores.map((one) => [one.metric, decimal(one.value), range(one.ci95), size(one)]),
    ["chance", decimal(chance), "", ""]]));
}
function costs({ cost, encoder, adapter, provenance }) {
  const known = (x) => (x === null || x === undefined ? "–" : si(x)), step = cost.training;
  const training = step ? [
    ["a training step", `${si(step.seconds)}s, ${whole(step.batch)} examples`],
    ["kept for its backward pass", `${known(step.saved_bytes)}B`],
    [`its peak memory, ${step.peak_of}`, `${known(step.peak_bytes)}B`],
    ["its FLOPs, both passes", known(step.flops)]] : [];
  return titled("Cost", numbers(null, [
    ["decode", `${si(cost.decode_s)}s`],
    ["encode", `${si(cost.encode_s)}s`],
    ["fit", `${si(cost.fit_s)}s`],
    ["in all", `${si(cost.wall_s)}s`],
    ["clips encoded", whole(cost.encoder_forwards)],
    ["features from the store", `${whole(cost.cache_hits)} of ${whole(cost.cache_hits + cost.cache_misses)}`],
    ["peak memory", `${si(cost.peak_memory_bytes)}B`],
    ["encoder parameters", known(encoder.parameters)],
    ["trained parameters", si(adapter.trainable_parameters)],
    ["trainable FLOPs per clip", known(adapter.trainable_flops)],
    ...training,
    ["device", provenance.device]]));
}
function beside(number) {
  return number && titled("Beside print", numbers(null, [
    [`${number.row}, ${number.source}, table ${number.table}`, decimal(number.value)],
    ["measured minus printed", `${number.difference > 0 ? "+" : ""}${decimal(number.difference)}`],
    ["verdict", number.verdict]]), number.note && el("p", { class: "soft" }, number.note));
}
function controls({ controls }) {
  return controls.length && titled("Controls", numbers(["", "metric", "score"],
    controls.map((one) => [one.name, one.metric, decimal(one.value)])));
}
function shared({ data: { shared_videos: same } }) {
  return same && titled("Seen in training",
    el("p", { class: "partial" }, `${whole(same.videos)} of the test's videos were trained or chosen on, too.`),
    el("ul", null, same.first.map((pair) => el("li", null, `${pair.test}, in train as ${pair.train}`))));
}
function failures({ data, scores }, reasons) {
  const kinds = unique(reasons), times = (kind) => reasons.filter((reason) => reason === kind).length;
  return data.n_failed && titled("Failures",
    el("p", { class: "partial" }, `${whole(data.n_failed)} of ${whole(data.n_expected)} failed and count as wrong.`),
    scores.length && el("p", null, `Were they all right, it would be ${decimal(scores[0].bounds[1])}.`),
    el("ul", null, kinds.slice(0, MOST).map((kind) => el("li", null, `${kind} (${whole(times(kind))})`)),
      kinds.length > MOST && el("li", null, `${whole(kinds.length - MOST)} other reasons, under Samples`)));
}

function sweep(selection) {  // scores on val: of the grid over a setting that varies, of the chosen point over epochs
  if (!selection) return null;
  const grid = selection.grid.map((point) => Object.fromEntries(flat(point)));
  const found = selection.grid_val_scores ?? [], { point: best, epoch: last } = selection.chosen;
  const vary = unique(grid.flatMap(Object.keys)).filter((key) => unique(grid.map((point) => point[key])).length > 1);
  const place = el("div", { class: "small" }), said = el("p", { class: "soft told" });

  function draw(key) {
    const values = unique(grid.map((point) => point[key])), real = values.every((value) => typeof value === "number");
    const points = grid.map((point, i) => {
      const others = vary.filter((name) => name !== key).map((name) => `${name} ${plain(point[name])}`).join(", ");
      const told = [`${key} ${plain(point[key])}`, others].filter(Boolean).join(", ");
      return { x: real ? point[key] : values.indexOf(point[key]), y: found[i], others, chosen: i === best,
        told: `${told}: ${decimal(found[i])} on val${i === best ? ", chosen" : ""}` };
    }).filter((point) => point.y !== null).sort((a, b) => a.x - b.x);
    const log = real && Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) > 8;
    const write = real ? String : (place) => plain(values[place] ?? "");
    const curves = !real ? [] : unique(points.map((point) => point.others)).map((others) =>
      points.filter((point) => point.others === others));
    place.replaceChildren(points.length ? plot(points, { x: key, y: "val", log, write, curves, told: said })
      : el("p", null, "No point could be fitted."));
  }

  const parts = [];
  if (vary.length && found.length) {
    draw(vary[0]);
    parts.push(titled(`Sweep of ${grid.length}, chosen on val`, vary.length > 1
      && el("select", { "aria-label": "Setting", onchange: (event) => draw(event.target.value) },
        vary.map((key) => el("option", null, key))), place, said));
  }
  const epochs = (selection.val_scores ?? []).map((value, i) =>
    ({ x: i + 1, y: value, chosen: i + 1 === last, told: `epoch ${i + 1}: ${decimal(value)}` }))
    .filter((point) => point.y !== null);
  if (epochs.length > 1) parts.push(titled("Chosen point, score on val",
    el("div", { class: "small" }, plot(epochs, { x: "epoch", y: "val", curves: [epochs] }))));
  return parts;
}
