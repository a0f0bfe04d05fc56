// --- a run's samples -------------------------------------------------------------------------------------------------

const MORE = 100;  // samples drawn at a time
const OUTCOMES = { right: "right", wrong: "wrong", part: "in part", failed: "failed", unknown: "not told" };

// What a run says of the samples: of each its value, 0..1 or null, its own part of a headline that is a
// mean, its outcome, its answer in words, and its first class.
function read(samples, run) {
  const { ids, targets } = samples, parts = PARTS[samples.regions], of = (value) => value?.regions ?? [];
  const values = run.values
    ?? (parts && ids.map((_, i) => reached(of(targets[i]), of(run.predictions[i]), parts)));
  const outcome = ids.map((_, i) => {
    if (run.failures[i] !== undefined) return "failed";
    const value = values?.[i] ?? null;
    return value === null ? "unknown" : Number(value) === 1 ? "right" : Number(value) === 0 ? "wrong" : "part";
  });
  const first = (value) => (typeof value === "number" ? value : Array.isArray(value) ? value[0] : value?.best?.[0][0]);
  const predicted = run.view === "classes" ? run.predictions.map((value) => first(value) ?? -1) : null;
  const right = predicted && targets.map((value) => first(value) ?? null);  // a class, which may stand in a list
  const answers = ids.map((_, i) => run.failures[i] ?? answer(samples, run, i));
  return { right, values, each: run.each, outcome, predicted, answers };
}

function option(samples, number, i) {  // its words, where the task has such
  const words = samples.options?.[i]?.[number];
  return samples.classes?.[number] ?? (words === undefined ? String(number) : `${number}: ${words}`);
}
const className = (samples, number) => samples.classes?.[number] ?? `class ${number}`;
function say(samples, value, i) {  // a target or prediction in words
  if (typeof value === "number") return option(samples, value, i);
  if (Array.isArray(value)) return value.map((number) => option(samples, number, i)).join(", ");
  if (value.regions) return summary(value, PARTS[samples.regions], (label) => say(samples, label, i));
  return value.best ? value.best.map(([number, score]) => `${option(samples, number, i)} ${score}`).join(", ") : value;
}
function answer(samples, run, i) {
  const value = run.predictions[i], ranks = run.ranks?.[i];
  if (ranks) return `its video: rank ${ranks[0] ?? "unknown"}; the video's best text: rank ${ranks[1] ?? "unknown"}`;
  const shares = Array.isArray(value) ? run.percent?.[i] ?? [] : [];
  if (!shares.length) return say(samples, value, i);
  return value.map((number, k) => `${option(samples, number, i)}${shares[k] ? ` ${shares[k]} %` : ""}`).join(", ");
}

// The section, and what others do to it: `only` shows the samples of a class, `compare` another run beside it.
function samplesSection(samples, run, own) {
  const { ids, videos, kinds, targets, texts, note, seconds, aspects } = samples, { outcome, values, answers } = own;
  const parts = PARTS[samples.regions], of = (value) => value?.regions ?? [];
  const shown = samples.pictures ? JSON.parse($(samples.pictures).textContent) : null;
  const boxes = samples.regions === "boxes", pictures = boxes ? null : shown;  // boxes are drawn on theirs
  const [headline] = run.result.scores, { view } = run;
  const references = targets.map((value, i) => say(samples, value, i));
  const lines = view === "captions" ? references.map((text) => (text ? text.split("\n") : [])) : null;
  const starts = [];  // of each sample's references among those of all
  for (let i = 0, sum = 0; i < (lines?.length ?? 0); sum += lines[i++].length) starts.push(sum);
  const search = ids.map((id, i) =>
    [id, videos[i], kinds[i], texts?.[i], references[i], answers[i]].join("\n").toLowerCase());
  const optional = (i) => view === "options" && (samples.options?.[i]?.length || optionScores(i));
  let other = null, picked = null, found = [], drawn = 0;

  const all = unique(kinds).filter(Boolean).sort();
  const text = el("input", { type: "search", id: "sample-text", placeholder: "id or words ( / )", oninput: filter });
  const which = el("select", { id: "sample-outcome", onchange: filter });
  const kind = all.length ? el("select", { id: "sample-kind", onchange: filter },
    el("option", { value: "" }, "all"), all.map((name) => el("option", null, name))) : null;
  const order = el("select", { id: "sample-order", onchange: filter });
  const chip = el("button", { type: "button", class: "plain", hidden: "", "aria-label": "Show all samples again",
    onclick: () => only(null) });
  const count = el("output", { id: "sample-count", class: "soft", "aria-live": "polite" });
  const place = el("ol", { class: "samples" });
  const more = el("button", { type: "button", class: "plain", onclick: append });

  // How this run's sample differs from the other run's: above 0 where it is better here, null where they are alike.
  function change(i) {
    const here = value(own, i), there = value(other, i);
    if (here !== null && there !== null && here !== there) return here - there;
    return outcome[i] === other.outcome[i] ? null : 0;
  }
  function value(one, i) {
    const known = (one.values ?? one.each)?.[i] ?? null;
    return one.outcome[i] === "failed" ? 0 : known === null ? null : Number(known);
  }
  // By what the samples can be put in order: smaller numbers come first.
  const ORDERED = {
    worst: ["worst rank first", run.ranks && ((i) => -(run.ranks[i]?.[0] ?? Infinity))],
    best: ["best rank first", run.ranks && ((i) => run.ranks[i]?.[0] ?? Infinity)],
    low: ["lowest score first", own.each && ((i) => value(own, i) ?? Infinity)],
    high: ["highest score first", own.each && ((i) => -(value(own, i) ?? -Infinity))],
    change: ["changed most first", (i) => -Math.abs(change(i) ?? 0)],
  };
  const CHANGES = {
    changed: ["changed", (i) => change(i) !== null], better: ["better here", (i) => change(i) > 0],
    worse: ["worse here", (i) => (change(i) ?? 0) < 0],
  };
  function outcomes() {
    const chosen = which.value, times = (fits) => ids.reduce((sum, _, i) => sum + fits(i), 0);
    const one = (key, label, many) => many > 0 && el("option", { value: key }, `${label} (${whole(many)})`);
    which.replaceChildren(...[
      el("option", { value: "" }, `all (${whole(ids.length)})`),
      ...Object.entries(OUTCOMES).map(([key, label]) => one(key, label, times((i) => outcome[i] === key))),
      ...(other ? Object.entries(CHANGES).map(([key, [label, fits]]) => one(key, label, times(fits))) : []),
    ].filter(Boolean));
    which.value = [...which.options].some((one) => one.value === chosen) ? chosen : "";
    const before = order.value;
    const possible = Object.entries(ORDERED).filter(([key, [, by]]) => by && (key !== "change" || other));
    order.replaceChildren(el("option", { value: "" }, "as in the data"), ...possible.map(([key, [label]]) =>
      el("option", { value: key }, label)));
    order.value = possible.some(([key]) => key === before) ? before : "";
    order.parentNode?.toggleAttribute("hidden", !possible.length);
  }

  function row(i) {
    const name = outcome[i], picture = pictures?.[videos[i]];
    const score = name === "part" ? 100 * values[i] : own.each?.[i] ?? null;
    const sign = name !== "unknown" && name !== "part" ? OUTCOMES[name] : score === null ? "" : decimal(score);
    const options = optional(i), cells = [];
    if (texts) cells.push(el("div", { "data-name": "asked", class: "clamp" }, texts[i]));
    if (lines && typeof run.predictions[i] === "string") cells.push(...captionPair(run.predictions[i], lines[i], {
      caption: run.tokens?.[i], references: lines[i].map((_, k) => samples.tokens?.[starts[i] + k]) }));
    else if (!options) {
      if (view !== "retrieval") cells.push(el("div", { "data-name": "reference", class: "clamp" }, references[i]));
      cells.push(el("div", { "data-name": view === "retrieval" ? "ranks" : "prediction", class: "clamp" }, answers[i]));
    } else if (name === "failed") cells.push(el("div", { "data-name": "prediction", class: "drawn" }, answers[i]));
    const changed = other && change(i);
    if (other) cells.push(el("div", { "data-name": "other run", class: "clamp" },
      changed !== null && el("b", { class: "tag" }, changed ? (changed > 0 ? "better here" : "worse here") : "changed"),
      changed !== null && " ", other.answers[i]));
    return el("li", { "data-outcome": name, tabindex: -1 },
      pictures && el("div", { class: "picture" }, picture
        && el("img", { decoding: "async", src: `data:image/jpeg;base64,${picture}`,
          alt: `middle frame of ${videos[i]}` })),
      el("div", { class: name }, sign),
      el("div", null, ids[i], el("small", { style: "display:block" },
        [videos[i], kinds[i]].filter((one) => one && one !== ids[i]).join(", "))),
      cells,
      options && el("div", { class: "drawn" }, optionList({ words: samples.options?.[i], scores: optionScores(i),
        shares: run.shares, right: targets[i], answer: run.predictions[i] })),
      run.nearest?.[i]?.length > 0 && el("div", { class: "drawn" }, nearest(i)),
      parts && of(targets[i]).length + of(run.predictions[i]).length > 0 && el("div", { class: "drawn" },
        DRAWING[samples.regions](of(targets[i]), of(run.predictions[i]), (label) => say(samples, label, i),
          seconds?.[i], boxes && shown?.[ids[i]] && { jpeg: shown[ids[i]], aspect: aspects[videos[i]] })));
  }
  function optionScores(i) {  // what each option scores, if it is as many as there are options
    const scores = run.scores?.[i] ?? [], many = samples.options?.[i]?.length ?? scores.length;
    return scores.length === many && scores.some((score) => score !== null) ? scores : null;
  }
  function nearest(i) {
    const video = (of) => references[of].split("\n")[0], right = video(i);
    return neighbors({ near: run.nearest[i], rank: run.ranks[i]?.[0] ?? null,
      right: (near) => (typeof near === "number" ? video(near) : near) === right,
      picture: (near) => pictures?.[videos[near]], name: (near) => (typeof near === "number" ? video(near) : near) });
  }

  function append() {
    const added = found.slice(drawn, drawn + MORE).map(row);
    if (!drawn) added[0]?.setAttribute("tabindex", 0);
    place.append(...added);
    drawn = Math.min(drawn + MORE, found.length);
    more.hidden = drawn >= found.length;
    more.textContent = `Show ${Math.min(MORE, found.length - drawn)} more of ${whole(found.length - drawn)}`;
  }
  function filter() {
    const wanted = words(text.value), fitting = CHANGES[which.value]?.[1] ?? ((i) => outcome[i] === which.value);
    const chosen = (i) => !picked
      || (own.right[i] === picked.target && (picked.answer === null || own.predicted[i] === picked.answer));
    const fits = (i) => (!which.value || fitting(i)) && (!kind?.value || kinds[i] === kind.value) && chosen(i);
    found = [...ids.keys()].filter((i) => fits(i) && has(search[i], wanted));
    if (order.value) {
      const by = ORDERED[order.value][1];
      found.sort((a, b) => (by(a) < by(b) ? -1 : by(a) > by(b) ? 1 : a - b));
    }
    count.textContent = `${whole(found.length)} of ${whole(ids.length)}`;
    drawn = 0;
    const asked = view === "options" && ids.some((_, i) => optional(i));
    const names = [pictures && " ", " ", "sample", texts && "asked", !asked && view !== "retrieval" && "reference",
      !asked && (view === "retrieval" ? "ranks" : "prediction"), other && other.title].filter(Boolean);
    const wide = [texts, !asked && view !== "retrieval", !asked, other].filter(Boolean).map(() => "2fr");
    const shape = [pictures && "96px", "5.5rem", "minmax(7rem, 1fr)", ...wide].filter(Boolean);
    place.style.setProperty("--columns", shape.join(" "));
    const head = names.map((name) => el("div", null, name));
    place.replaceChildren(el("li", { class: "head", "aria-hidden": "true" }, head));
    if (!found.length) place.append(el("li", { class: "none soft" }, "No sample is like that."));
    append();
  }
  function only(target, answered = null) {  // the samples of one class, or of one taken for another
    picked = target === null ? null : { target, answer: answered };
    chip.hidden = !picked;
    if (picked) {
      const taken = answered === null ? "" : answered === target ? ", right" : answered < 0 ? ", failed"
        : ` taken for ${className(samples, answered)}`;
      chip.textContent = `${className(samples, target)}${taken} \u2715`;
      chip.setAttribute("aria-label", `Only ${className(samples, target)}${taken}: show all again`);
    }
    filter();
    if (picked) section.scrollIntoView();
  }
  function compare(one) {  // what `read` says of another run, with its title; null for none
    other = one;
    outcomes();
    filter();
  }

  // j and k go from sample to sample, as arrow keys do on one; Enter shows all of a long text.
  function key(event) {
    const writing = /^(input|select|textarea|canvas)$/i.test(event.target.tagName);
    if (event.ctrlKey || event.metaKey || event.altKey || writing) return;
    const here = document.activeElement.closest?.(".samples > li[data-outcome]"), step = STEPS[event.key]?.[0];
    if (step && (here || event.key === "j" || event.key === "k")) {
      const rows = [...place.querySelectorAll(":scope > li[data-outcome]")], at = rows.indexOf(here);
      if (at + step >= rows.length && !more.hidden) append();
      const next = here ? place.querySelectorAll(":scope > li[data-outcome]")[at + step] : rows[0];
      if (!next) return event.preventDefault();
      place.querySelector(":scope > [tabindex='0']")?.setAttribute("tabindex", -1);
      next.setAttribute("tabindex", 0);
      next.focus();
      next.scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter" && here === event.target) here.classList.toggle("open");
    else if (event.key === "Escape" && here?.classList.contains("open")) here.classList.remove("open");
    else if (event.key === "/") text.focus();
    else return;
    event.preventDefault();
  }
  place.addEventListener("click", (event) => {
    if (!String(getSelection())) event.target.closest(".samples > li[data-outcome]")?.classList.toggle("open");
  });
  new IntersectionObserver(([end]) => { if (end.isIntersecting && !more.hidden) append(); }, { rootMargin: "600px" })
    .observe(more);
  const legends = {
    options: run.scores && `Beside each option: its ${run.scores_are}${
      run.shares ? ", and its share of all options by their softmax" : ""}.`,
    captions: `Marked, the stronger the longer: n-grams of up to ${GRAMS} words that caption and references share, as
      BLEU and CIDEr count them.`,
    retrieval: !run.nearest ? "This result does not hold which videos are nearest."
      : !pictures && !note && "evalkit leaderboard with videos=FOLDER shows a frame of each video.",
  };
  const section = el("section", { id: "samples" }, el("h2", null, view === "retrieval" ? "Queries" : "Samples"),
    headline && !run.values && el("p", { class: "soft" },
      `${headline.metric} is of all examples together: no single one is right or wrong by it.`,
      own.each && ` Beside each: its own ${headline.metric}.`, parts && ` Here, right
      means that the likeliest predicted ${samples.regions}, as many as are annotated, reach all of these with their
      label and an IoU of at least ${IOU}; wrong, that they reach none.`),
    parts && el("p", { class: "soft" }, LEGEND[samples.regions], boxes && !shown && !note && ` ${NO_PICTURES}`),
    legends[view] && el("p", { class: "soft" }, legends[view]),
    note && el("p", { class: "soft" }, note),
    el("div", { class: "bar", role: "search", "aria-label": "Which samples" }, el("label", null, "Text ", text),
      el("label", null, "Outcome ", which), kind && el("label", null, "Kind ", kind),
      el("label", null, "Order ", order), chip, count),
    el("p", { class: "soft keys-told" },
      "j and k, or arrow keys: next and previous sample; Enter: all of its text; /: search; Escape: back."),
    place, more);
  compare(null);
  return { section, only, compare, key };
}
