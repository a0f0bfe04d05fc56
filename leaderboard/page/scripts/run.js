// --- a run -----------------------------------------------------------------------------------------------------------

const loaded = document.readyState === "loading"
  ? new Promise((done) => document.addEventListener("DOMContentLoaded", done)) : Promise.resolve();

async function unpack(id) {  // what Python's zlib and base64 have packed, from its script element
  await loaded;  // the packed runs stand at the end of the file
  const packed = Uint8Array.from(atob($(id).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

const ok = (canary) => canary.filter((check) => check.outcome === "ok").length;

async function show(index) {
  const cell = board.cells[index], column = board.columns[cell.column];
  const run = await unpack(`run-${index}`), samples = await unpack(cell.samples);
  const { result } = run, { task, data, provenance } = result, { canary, ...encoder } = result.encoder;
  const { language_model, canary: measured, ...adapter } = result.adapter;
  const close = el("button", { type: "button", class: "plain", onclick: () => $("run").close() }, "Close");
  const newest = cell.seeds > 1 ? `newest of ${cell.pooled}, whose mean the board shows`
    : cell.times > 1 && `newest of ${cell.times}`;
  const where = [column.split, column.how, column.protocol, cell.name, newest];
  $("run").replaceChildren(
    el("header", null, el("div", null,
      el("h2", { id: "run-name" }, `${cell.encoder} on ${column.task}`),
      el("div", { class: "soft" }, where.filter(Boolean).join(", ")),
      cell.mark && el("div", { class: "soft" },
        `(${cell.mark}) unlike the rest of its column: ${column.marks[cell.mark]}`),
      cell.seen && el("div", { class: "soft" },
        `† trained on ${cell.seen}, which shares videos with ${column.task}`)), close),
    el("div", null,
      el("div", { class: "facts" }, scores(result), costs(result), beside(cell.beside), controls(result),
        failures(result, Object.values(run.failures)), sweep(result.selection)),
      settings("Configuration", flat({ adapter, encoder, protocol: task.protocol })),
      languageModel(language_model, measured),
      settings("Provenance", flat({ ...provenance, fingerprint: data.fingerprint, score: task.score,
        version: task.version, protocol_sha256: task.protocol_sha256, predictions_sha256: data.predictions_sha256 })),
      canary?.length && settings(`Canary: ${ok(canary)} of ${canary.length} ok`,
        canary.map((check) => [`${check.check}: ${check.outcome}`, check.detail])),
      list(samples, run)));
  if (!$("run").open) $("run").showModal();
  $("run").scrollTop = 0;
  close.focus({ preventScroll: true });
  history.replaceState(null, "", link(cell));
}
$("run").addEventListener("close", () => history.replaceState(null, "", "#"));

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

// --- its samples -----------------------------------------------------------------------------------------------------

const OUTCOMES = { right: "right", wrong: "wrong", part: "in part", failed: "failed", unknown: "not told" };

function list(samples, run) {
  const { ids, videos, kinds, targets, texts, options, classes, note, seconds, aspects } = samples;
  const parts = PARTS[samples.regions], of = (value) => value?.regions ?? [];
  const shown = samples.pictures ? JSON.parse($(samples.pictures).textContent) : null;
  const boxes = samples.regions === "boxes", pictures = boxes ? null : shown;  // boxes are drawn on theirs
  const [headline] = run.result.scores;

  function option(number, i) {  // its words, where the task has such
    const words = options?.[i]?.[number];
    return classes?.[number] ?? (words === undefined ? String(number) : `${number}: ${words}`);
  }
  function say(value, i) {  // a target or prediction in words
    if (typeof value === "number") return option(value, i);
    if (Array.isArray(value)) return value.map((number) => option(number, i)).join(", ");
    if (value.regions) return summary(value, parts, (label) => say(label, i));
    return value.best ? value.best.map(([number, score]) => `${option(number, i)} ${score}`).join(", ") : value;
  }
  const values = run.values
    ?? (parts && ids.map((_, i) => reached(of(targets[i]), of(run.predictions[i]), parts)));
  const outcome = ids.map((_, i) => {
    if (run.failures[i] !== undefined) return "failed";
    const value = values?.[i] ?? null;
    return value === null ? "unknown" : Number(value) === 1 ? "right" : Number(value) === 0 ? "wrong" : "part";
  });
  const answers = ids.map((_, i) => run.failures[i] ?? say(run.predictions[i], i));
  const references = targets.map(say);
  const search = ids.map((id, i) =>
    [id, videos[i], kinds[i], texts?.[i], references[i], answers[i]].join("\n").toLowerCase());

  const times = (name) => outcome.filter((one) => one === name).length;
  const all = unique(kinds).filter(Boolean).sort();
  const text = el("input", { type: "search", id: "sample-text", placeholder: "id or words", oninput: filter });
  const which = el("select", { id: "sample-outcome", onchange: filter },
    el("option", { value: "" }, `all (${whole(ids.length)})`), Object.keys(OUTCOMES).filter(times).map((name) =>
      el("option", { value: name }, `${OUTCOMES[name]} (${whole(times(name))})`)));
  const kind = all.length ? el("select", { id: "sample-kind", onchange: filter },
    el("option", { value: "" }, "all"), all.map((name) => el("option", null, name))) : null;
  const count = el("output", { id: "sample-count", class: "soft", "aria-live": "polite" });
  const shape = [pictures && "96px", "5.5rem", "minmax(7rem, 1fr)", texts && "2fr", "2fr", "2fr"].filter(Boolean);
  const place = el("ol", { class: "samples", style: `--columns: ${shape.join(" ")}` });
  const more = el("button", { type: "button", class: "plain", onclick: append });
  let found = [], drawn = 0;

  function row(i) {
    const name = outcome[i], picture = pictures?.[videos[i]];
    const sign = name === "unknown" ? "" : name === "part" ? decimal(100 * values[i]) : OUTCOMES[name];
    return el("li", { "data-outcome": name },
      pictures && el("div", { class: "picture" }, picture
        && el("img", { src: `data:image/jpeg;base64,${picture}`, alt: `middle frame of ${videos[i]}` })),
      el("div", { class: name }, sign),
      el("div", null, ids[i], el("small", { style: "display:block" },
        [videos[i], kinds[i]].filter((one) => one && one !== ids[i]).join(", "))),
      texts && el("div", { "data-name": "asked" }, texts[i]),
      el("div", { "data-name": "reference" }, references[i]),
      el("div", { "data-name": "prediction" }, answers[i]),
      parts && of(targets[i]).length + of(run.predictions[i]).length > 0 && el("div", { class: "drawn" },
        DRAWING[samples.regions](of(targets[i]), of(run.predictions[i]), (label) => say(label, i), seconds?.[i],
          boxes && shown?.[ids[i]] && { jpeg: shown[ids[i]], aspect: aspects[videos[i]] })));
  }
  function append() {
    place.append(...found.slice(drawn, drawn + MORE).map(row));
    drawn = Math.min(drawn + MORE, found.length);
    more.hidden = drawn >= found.length;
    more.textContent = `Show ${Math.min(MORE, found.length - drawn)} more of ${whole(found.length - drawn)}`;
  }
  function filter() {
    const wanted = words(text.value);
    const fits = (i) => (!which.value || outcome[i] === which.value) && (!kind?.value || kinds[i] === kind.value);
    found = [...ids.keys()].filter((i) => fits(i) && has(search[i], wanted));
    count.textContent = `${whole(found.length)} of ${whole(ids.length)}`;
    drawn = 0;
    const names = [pictures && " ", " ", "sample", texts && "asked", "reference", "prediction"].filter(Boolean);
    const head = names.map((name) => el("div", null, name));
    place.replaceChildren(el("li", { class: "head", "aria-hidden": "true" }, head));
    append();
  }
  filter();
  new IntersectionObserver(([end]) => { if (end.isIntersecting && !more.hidden) append(); }, { rootMargin: "600px" })
    .observe(more);
  return el("section", null, el("h2", null, "Samples"),
    headline && !run.values && el("p", { class: "soft" },
      `${headline.metric} is of all examples together: no single one is right or wrong by it.`, parts && ` Here, right
      means that the likeliest predicted ${samples.regions}, as many as are annotated, reach all of these with their
      label and an IoU of at least ${IOU}; wrong, that they reach none.`),
    parts && el("p", { class: "soft" }, LEGEND[samples.regions], boxes && !shown && !note && ` ${NO_PICTURES}`),
    note && el("p", { class: "soft" }, note),
    el("div", { class: "bar", role: "search", "aria-label": "Which samples" }, el("label", null, "Text ", text),
      el("label", null, "Outcome ", which), kind && el("label", null, "Kind ", kind), count),
    place, more);
}

