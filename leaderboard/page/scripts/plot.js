// --- a plot of points ------------------------------------------------------------------------------------------------

// Points {x, y, ci95, name, told, open, behind, apart, chosen}, lines through some (`curves`), and a front in `steps`.
function plot(points, { x, y, write = plain, log = false, steps = [], curves = [], told = null }) {
  const across = scale(points.map((point) => point.x), log);
  const up = scale(points.flatMap((point) => [point.y, ...(point.ci95 ?? [])]));
  const left = (point) => percent(across.at(point.x)), top = (value) => percent(1 - up.at(value));
  const line = (name, x1, y1, x2, y2) => svg("line", { class: name, x1, y1, x2, y2 });
  const text = (attributes, words) => svg("text", attributes, words);
  const dots = points.length > 40 ? 2 : 5;  // a run of many epochs is a line

  const corners = steps.slice(1).flatMap((point, i) => [
    line("curve", left(steps[i]), top(steps[i].y), left(point), top(steps[i].y)),
    line("curve", left(point), top(steps[i].y), left(point), top(point.y))]);
  const segments = curves.flatMap((curve) => curve.slice(1).map((point, i) =>
    line("curve", left(curve[i]), top(curve[i].y), left(point), top(point.y))));
  const whiskers = points.filter((point) => point.ci95 && point.ci95[0] !== null).map((point) =>
    line("whisker", left(point), top(point.ci95[0]), left(point), top(point.ci95[1])));
  const named = points.filter((point) => point.name).sort((a, b) => Boolean(a.behind) - Boolean(b.behind));
  const names = named.map((point) => text({ class: point.behind ? "name behind" : "name" }, point.name));
  const leaders = named.map(() => line("leader"));

  function dot(point) {
    const say = () => { if (told) told.textContent = point.told; };
    const open = (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      point.open();
    };
    const button = point.open && { tabindex: 0, role: "button", onclick: point.open, onkeydown: open };
    const kinds = ["dot", ...["behind", "apart", "chosen"].filter((kind) => point[kind])];
    return svg("circle", { class: kinds.join(" "), cx: left(point), cy: top(point.y), r: point.chosen ? 5 : dots,
      "aria-label": point.told, onmouseenter: say, onfocus: say, ...button }, svg("title", null, point.told));
  }
  const drawn = svg("svg", { role: "group", "aria-label": `${y} over ${x}` },
    up.ticks.map((tick) => [line("rule", 0, top(tick), "100%", top(tick)),
      text({ x: -8, y: top(tick), dy: 4, "text-anchor": "end" }, String(tick))]),
    across.ticks.map((tick) =>
      text({ x: percent(across.at(tick)), y: "100%", dy: 18, "text-anchor": "middle" }, write(tick))),
    text({ x: "100%", y: "100%", dy: 36, "text-anchor": "end" }, x), text({ x: -40, y: 0, dy: -8 }, y),
    corners, segments, whiskers, leaders, points.map(dot), names);
  const made = el("div", { class: "plot" }, drawn);
  if (named.length) new ResizeObserver(() => label(made, drawn)).observe(drawn);

  function label(plot, { clientWidth: width }) {  // the only part that depends on the width in pixels
    if (!width) return;
    const most = Math.max(14, Math.min(40, Math.round(width / 18)));
    const short = distinct(named.map((point) => point.name), most);
    for (const [i, name] of names.entries()) name.textContent = short[i];
    const sizes = names.map((name) => ({ width: name.getComputedTextLength(), height: 13 }));
    let height = 17 * 16, places;
    for (;; height *= 1.3) {  // taller until all have room
      const at = named.map((point) => ({ x: across.at(point.x) * width, y: (1 - up.at(point.y)) * height }));
      places = arrange(at, sizes, width, height);
      if (height > 1000 || places.every(Boolean)) break;
    }
    plot.style.height = `${Math.round(height)}px`;
    for (const [i, place] of places.entries()) {
      const [name, leader, point] = [names[i], leaders[i], named[i]];
      name.toggleAttribute("hidden", !place);
      leader.toggleAttribute("hidden", !place?.far);
      if (!place) continue;
      name.setAttribute("x", place.x.toFixed(1));
      name.setAttribute("y", (place.y + 10).toFixed(1));
      const ends = { x1: left(point), y1: top(point.y), x2: place.to.x.toFixed(1), y2: place.to.y.toFixed(1) };
      for (const [key, value] of Object.entries(ends)) leader.setAttribute(key, value);
    }
  }
  return made;
}

// Where the label of each point stands, in pixels, so that it covers no other label and no point: its left upper
// corner, and where a line from the point ends if it is `far`; null where there is no room.
function arrange(points, labels, width, height) {
  const taken = points.map(({ x, y }) => [x - 5, y - 5, x + 5, y + 5]);
  const free = (box) => box[0] >= 0 && box[2] <= Math.max(width, box[2] - box[0]) && box[1] >= -8 && box[3] <= height
    && taken.every((other) => box[2] <= other[0] || other[2] <= box[0] || box[3] <= other[1] || other[3] <= box[1]);
  const sides = [[1, -1], [-1, -1], [1, 1], [-1, 1], [0, -1], [0, 1], [1, 0], [-1, 0]];
  return points.map(({ x, y }, i) => {
    const { width: wide, height: high } = labels[i];
    for (const away of [6, 16, 28, 42, 60, 80, 104, 132])
      for (const [right, down] of sides) {
        const one = x + (right > 0 ? away : right < 0 ? -away - wide : -wide / 2);
        const two = y + (down > 0 ? away : down < 0 ? -away - high : -high / 2);
        const box = [one, two, one + wide, two + high];
        if (!free(box)) continue;
        taken.push(box);
        const to = { x: Math.min(Math.max(x, box[0]), box[2]), y: Math.min(Math.max(y, box[1]), box[3]) };
        return { x: one, y: two, to, far: away > 16 };
      }
    return null;
  });
}
