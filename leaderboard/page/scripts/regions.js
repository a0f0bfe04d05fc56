// --- what happens when, and where: segments on a time line, boxes in a frame -----------------------------------------

const IOU = 0.5;
const PARTS = { segments: 2, boxes: 4 };  // numbers before the label: start, end; left, top, right, bottom
const WIDTH = 160, EMPTY = 16 / 9;  // of a frame, and its aspect where there is no picture of it

const scored = (region, parts) => region[parts + 1];
const strength = (score, best) => (best > 0 ? Math.max(0.1, score / best) : 1);
const best = (predicted, parts) => Math.max(...predicted.map((region) => scored(region, parts)));

function overlap(a, b, parts) {  // intersection over union
  const half = parts / 2;
  let both = 1, one = 1, other = 1;
  for (let i = 0; i < half; i++) {
    both *= Math.max(0, Math.min(a[half + i], b[half + i]) - Math.max(a[i], b[i]));
    one *= a[half + i] - a[i];
    other *= b[half + i] - b[i];
  }
  return one + other > both ? both / (one + other - both) : Number(a.slice(0, parts).every((x, i) => x === b[i]));
}
// Share of the annotated regions that the likeliest predictions, as many as are annotated, reach with their label.
function reached(annotated, predicted, parts) {
  if (!annotated.length) return null;
  const free = new Set(annotated);
  for (const region of predicted.slice(0, annotated.length)) {
    const fits = [...free].map((one) => [one[parts] === region[parts] ? overlap(one, region, parts) : 0, one])
      .filter(([iou]) => iou >= IOU).sort(([a], [b]) => b - a);
    if (fits.length) free.delete(fits[0][1]);
  }
  return 1 - free.size / annotated.length;
}
function summary({ regions, count }, parts, name) {  // each class once: how often it is annotated, its best score
  const classes = new Map();
  for (const region of regions) classes.set(region[parts], [...(classes.get(region[parts]) ?? []), region]);
  const words = [...classes].map(([label, of]) => (scored(of[0], parts) !== undefined
    ? `${name(label)} ${scored(of[0], parts)}` : of.length > 1 ? `${name(label)} × ${of.length}` : name(label)));
  return [words.join(", ") || "none", count > regions.length && `(${regions.length} of ${whole(count)} are shown)`]
    .filter(Boolean).join(" ");
}

// A lane per class: above what is annotated, below what is predicted, the likelier the fuller.
function timeline(annotated, predicted, name, seconds) {
  const all = [...annotated, ...predicted], ends = all.flatMap(([start, end]) => [start, end]);
  const low = Math.min(0, ...ends), high = Math.max(seconds ?? 0, ...ends), length = high - low || 1;
  const x = (second) => percent((second - low) / length), top = best(predicted, 2);
  const told = ([start, end, label, score]) =>
    `${name(label)} ${start} – ${end} s${score === undefined ? "" : `, score ${score}`}`;
  const bar = (region, kind, y, filled) => svg("rect", { class: kind, x: x(region[0]), y, height: 7,
    width: percent((region[1] - region[0]) / length), "fill-opacity": filled },
    svg("title", null, `${kind}: ${told(region)}`));
  const lane = (label) => el("div", { class: "lane" }, el("span", { title: name(label) }, name(label)),
    svg("svg", null,
      seconds > 0 && high - seconds > length / 200 && svg("line", { x1: x(seconds), x2: x(seconds), y1: 0, y2: "100%" },
        svg("title", null, `the video ends at ${seconds} s`)),
      annotated.filter((region) => region[2] === label).map((region) => bar(region, "annotated", 1, 1)),
      predicted.filter((region) => region[2] === label).reverse()  // the likeliest on top
        .map((region) => bar(region, "predicted", 10, 0.7 * strength(region[3], top)))));
  const list = (regions) => regions.map(told).join("; ") || "none";
  return el("div", { class: "regions", role: "img",
    "aria-label": `annotated: ${list(annotated)}. predicted: ${list(predicted)}.` },
    unique(all.map((region) => region[2])).map(lane),
    el("div", { class: "lane" }, el("span"), el("div", { class: "axis" }, round(low, low + length).map((tick) =>
      el("span", { style: `left:${x(tick)}` }, `${tick} s`)))));
}

// Annotated boxes have numbers, predicted ones letters; all classes of one box stand in one line.
function frame(annotated, predicted, name, seconds, picture) {
  const width = WIDTH, height = WIDTH / (picture?.aspect ?? EMPTY), top = best(predicted, 4);
  function boxes(regions, sign) {
    const found = new Map();
    for (const region of regions) {
      const corners = region.slice(0, 4), key = corners.join();
      if (!found.has(key)) found.set(key, { corners, sign: sign(found.size), score: region[5], words: [] });
      found.get(key).words.push(region[5] === undefined ? name(region[4]) : `${name(region[4])} ${region[5]}`);
    }
    return [...found.values()].map((box) => ({ ...box, told: `${box.sign}: ${box.words.join(", ")}` }));
  }
  const kinds = { annotated: boxes(annotated, (n) => String(n + 1)),
    predicted: boxes(predicted, (n) => String.fromCharCode(97 + n)) };
  const sides = ["left", "top", "right", "bottom"];
  const place = ({ told, corners }) =>
    `${told}, at ${sides.map((side, i) => `${side} ${Math.round(100 * corners[i])} %`).join(", ")}`;
  const draw = (kind) => ({ corners: [left, up, right, down], sign, score, told }) =>
    svg("g", { class: kind, opacity: score === undefined ? 1 : strength(score, top) },
      svg("rect", { x: left * width, y: up * height, width: (right - left) * width, height: (down - up) * height }),
      svg("text", kind === "annotated" ? { x: left * width + 1.5, y: up * height + 6 }
        : { x: right * width - 1.5, y: down * height - 2, "text-anchor": "end" }, sign), svg("title", null, told));
  const alternative = Object.entries(kinds).map(([kind, found]) =>
    `${kind}: ${found.map(place).join("; ") || "none"}.`);
  return el("div", { class: "regions boxes" },
    svg("svg", { viewBox: `0 0 ${width} ${height}`, style: `aspect-ratio: ${width} / ${height}`, role: "img",
      "aria-label": alternative.join(" ") },
      picture && svg("image", { href: `data:image/jpeg;base64,${picture.jpeg}`, width, height }),
      kinds.predicted.map(draw("predicted")).reverse(), kinds.annotated.map(draw("annotated"))),
    el("div", { "aria-hidden": "true" }, Object.entries(kinds).map(([kind, found]) => found.length > 0
      && [el("b", { class: kind }, kind), found.map((box) => el("div", null, box.told))])));
}

const LEGEND = {
  segments: "Of each class, above: annotated; below, blue: predicted, the likelier the fuller. Seconds of the video.",
  boxes: "Solid, with numbers: annotated; blue and dashed, with letters: predicted, the likelier the stronger.",
};
const NO_PICTURES = "Frames are empty, and 16:9 whatever the video's is: evalkit leaderboard with videos=FOLDER draws the"
  + " key frames behind the boxes.";
const DRAWING = { segments: timeline, boxes: frame };
