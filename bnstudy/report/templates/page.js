"use strict";
// Adds a button to each header of a table that sorts the rows by that column.
function sortRows(rows, column, down) {
  const numeric = rows.every((row) => "value" in row.cells[column].dataset);
  const read = ({ dataset, textContent }) => (numeric ? Number(dataset.value || NaN) : textContent.trim());
  const keyed = rows.map((row) => [read(row.cells[column]), row]);
  const order = (a, b) => (numeric ? a - b : a.localeCompare(b, "en", { numeric: true }));
  const last = ([value]) => Number.isNaN(value); // rows without a number stay at the end
  const compare = (a, b) => last(a) - last(b) || (last(a) ? 0 : order(a[0], b[0]) * (down ? -1 : 1));
  return keyed.sort(compare).map(([, row]) => row);
}
function sortBy(table, header) {
  const down = header.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  const [body] = table.tBodies;
  for (const row of body.rows) row.classList.remove("again");
  body.append(...sortRows([...body.rows], header.cellIndex, down));
}
for (const table of document.querySelectorAll("table.sortable")) {
  for (const header of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    const label = header.querySelector(".label"); // beside an axis that is no part of the button
    button.append(...(label ? [label] : header.childNodes));
    button.addEventListener("click", () => sortBy(table, header));
    header.prepend(button);
  }
}
// Folded parts are printed open, but for ids of runs.
const opened = [];
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details:not([open], .unprinted)")) {
    folded.open = true;
    opened.push(folded);
  }
});
addEventListener("afterprint", () => {
  for (const folded of opened.splice(0)) folded.open = false;
});
