// --- how an answer is drawn: options with what each scores, nearest videos, captions with their n-grams --------------

const GRAMS = 4;  // of how many words the longest n-gram is that BLEU and CIDEr count
const WORD = /[a-z0-9]+/g;  // as details.py has it

function softmax(scores) {  // null is no number, and has no share
  const known = scores.filter((score) => score !== null);
  const top = Math.max(...known), total = known.reduce((sum, score) => sum + Math.exp(score - top), 0);
  return scores.map((score) => (score === null ? 0 : Math.exp(score - top) / total));
}

// The options of a question: which is right, which was answered, and what each scores.
function optionList({ words, scores, shares, right, answer }) {
  const many = words?.length ?? scores.length;
  const low = Math.min(...(scores ?? []).filter((score) => score !== null));
  const high = Math.max(...(scores ?? []).filter((score) => score !== null));
  const parts = !scores ? null : shares ? softmax(scores)
    : scores.map((score) => (score === null ? 0 : high > low ? (score - low) / (high - low) : 1));
  const told = (score, i) => [String(score ?? "none"), shares && score !== null && `${Math.round(100 * parts[i])} %`]
    .filter(Boolean).join(", ");
  return el("ol", { class: "options" }, Array.from({ length: many }, (_, i) =>
    el("li", { class: [i === right && "correct", i === answer && "answered"].filter(Boolean).join(" ") || null },
      el("span", { class: "signs" }, i === right && el("b", { class: "tag right" }, "right"),
        i === answer && el("b", { class: i === right ? "tag given" : "tag given off" }, "answered")),
      el("span", { class: "clamp" }, words?.[i] ?? `option ${i}`),
      scores && el("span", { class: "share", style: `--share: ${percent(parts[i])}` },
        el("small", null, told(scores[i], i))))));
}

// The videos nearest to a text, the nearest first; then the right one, if it is not among them.
function neighbors({ near, right, rank, picture, name }) {
  const one = (label, video, correct) => el("figure", { class: correct ? "near correct" : "near" },
    el("div", { class: "picture" }, picture(video) && el("img", { decoding: "async", alt: "",
      src: `data:image/jpeg;base64,${picture(video)}` })),
    el("figcaption", null, el("b", null, label), " ", name(video)),
    correct && el("b", { class: "tag right" }, "right"));
  const found = near.map((video, i) => one(String(i + 1), video, right(video)));
  const last = rank !== null && !near.some(right) && el("div", { class: "gap" }, `right: rank ${rank}`);
  return el("div", { class: "neighbors" }, found, last);
}

// --- n-grams ---------------------------------------------------------------------------------------------------------

// The tokens of a text, [{word, start, end}]; `odd` are those that are not just its words. Some stand nowhere in the
// text as they are, such as -lrb-, and have no place.
function tokens(text, odd) {
  const lower = text.toLowerCase().length === text.length ? text.toLowerCase() : text;
  if (odd === undefined)
    return [...lower.matchAll(WORD)].map((found) =>
      ({ word: found[0], start: found.index, end: found.index + found[0].length }));
  let from = 0;
  return odd.split(" ").filter(Boolean).map((word) => {
    const start = lower.indexOf(word, from);
    if (start < 0) return { word, start: -1, end: -1 };
    from = start + word.length;
    return { word, start, end: from };
  });
}

function gramCounts(words, n) {
  const counts = new Map();
  for (let i = 0; i + n <= words.length; i++) {
    const gram = words.slice(i, i + n).join(" ");
    counts.set(gram, (counts.get(gram) ?? 0) + 1);
  }
  return counts;
}

// Of each word how long the longest n-gram over it is that is among `most`, as often as it is there; and how many of
// each length are, which are BLEU's matches.
function covered(words, most) {
  const levels = words.map(() => 0), matches = most.map(() => 0);
  for (const [length, counts] of most.entries()) {
    const n = length + 1, used = new Map();
    for (let i = 0; i + n <= words.length; i++) {
      const gram = words.slice(i, i + n).join(" "), times = used.get(gram) ?? 0;
      if (times >= (counts.get(gram) ?? 0)) continue;
      used.set(gram, times + 1);
      matches[length] += 1;
      levels.fill(n, i, i + n);
    }
  }
  return { levels, matches };
}

// A caption beside its references: an n-gram counts as often as the reference that has it most often does, as in BLEU.
function compareCaption(caption, references) {
  const lengths = Array.from({ length: GRAMS }, (_, i) => i + 1);
  const words = caption.map((token) => token.word), theirs = references.map((one) => one.map((token) => token.word));
  const most = lengths.map((n) => {
    const best = new Map();
    for (const one of theirs) for (const [gram, times] of gramCounts(one, n))
      best.set(gram, Math.max(times, best.get(gram) ?? 0));
    return best;
  });
  const ours = lengths.map((n) => gramCounts(words, n));
  return { ...covered(words, most), totals: lengths.map((n) => Math.max(0, words.length - n + 1)),
    references: theirs.map((one) => covered(one, ours).levels) };
}

function marked(text, places, levels) {  // the text, with a mark around neighbors of one level
  const parts = [];
  let at = 0;
  for (let i = 0; i < places.length; i++) {
    if (places[i].start < 0 || !levels[i]) continue;
    let last = i;
    while (last + 1 < places.length && levels[last + 1] === levels[i] && places[last + 1].start >= 0) last += 1;
    parts.push(text.slice(at, places[i].start),
      el("mark", { class: `gram${levels[i]}` }, text.slice(places[i].start, places[last].end)));
    at = places[last].end;
    i = last;
  }
  return [...parts, text.slice(at)];
}

// Caption and references as two elements; `odd` are the tokens of the caption and of each reference.
function captionPair(caption, references, odd) {
  const ours = tokens(caption, odd.caption);
  const theirs = references.map((text, i) => tokens(text, odd.references[i]));
  const found = compareCaption(ours, theirs);
  const counts = found.totals.map((total, i) => total > 0 && `${i + 1}: ${found.matches[i]} of ${total}`)
    .filter(Boolean);
  return [
    el("div", { "data-name": "reference" }, el("div", { class: "clamp" }, references.map((text, i) =>
      el("div", null, marked(text, theirs[i], found.references[i]))))),
    el("div", { "data-name": "prediction" }, el("div", { class: "clamp" }, marked(caption, ours, found.levels)),
      counts.length > 0 && el("small", null, `n-grams that count: ${counts.join(", ")}`)),
  ];
}
