// --- start -----------------------------------------------------------------------------------------------------------

const encoders = unique(board.cells.map((cell) => cell.encoder)).length;
const tasks = unique(board.columns.map((column) => column.task)).length;
const runs = board.cells.reduce((sum, cell) => sum + cell.runs.length, 0);
$("summary").textContent = `${many(runs, "run")} of ${many(encoders, "encoder")} on ${many(tasks, "task")}`;
$("section").replaceChildren(...board.sections.map((section, i) => el("option", { value: i }, section.title)));
$("cost").replaceChildren(...Object.entries(COSTS).map(([name, [label]]) => el("option", { value: name }, label)));
$("cost").value = state.cost;
if (board.refused.length) {
  $("refused").hidden = false;
  $("refused").querySelector("ul").replaceChildren(...board.refused.map((line) => el("li", null, line)));
}
if (board.others.length) {
  $("others").hidden = false;
  $("others").querySelector("table").replaceWith(numbers(["encoder", "task", "split", "metric", "score", "tool"],
    board.others.map((one) => one.map((part) => (typeof part === "number" ? decimal(part) : part)))));
}
$("section").addEventListener("change", (event) => { state.section = Number(event.target.value); render(); });
$("encoder").addEventListener("input", (event) => { state.encoder = words(event.target.value); render(); });
$("task").addEventListener("input", (event) => { state.task = words(event.target.value); render(); });
$("printed").addEventListener("change", (event) => { state.printed = event.target.checked; render(); });
$("column").addEventListener("change", (event) => {
  state.column = Number(event.target.value);
  if (state.sort >= 0) state.sort = state.column;
  render();
});
$("cost").addEventListener("change", (event) => { state.cost = event.target.value; one(); });
document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
render();
for (const [index, cell] of board.cells.entries()) {
  const which = cell.runs.findIndex((run) => link(run) === location.hash);
  if (which >= 0) show(index, which);
}
