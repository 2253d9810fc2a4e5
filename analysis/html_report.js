// Sort the table by the column whose heading is pressed; rows without a value stay last. Without scripts: worst first.
for (const table of document.querySelectorAll("table")) {
  const headings = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const valueOf = (row, index) => {
    const cell = row.cells[index];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    return cell.classList.contains("number") ? null : cell.textContent;
  };
  headings.forEach((heading, index) => heading.addEventListener("click", () => {
    const numeric = index >= 2;
    const descending = heading.ariaSort === "none" ? numeric : heading.ariaSort === "ascending";
    for (const other of headings) other.ariaSort = "none";
    heading.ariaSort = descending ? "descending" : "ascending";
    const sign = descending ? -1 : 1;
    const rows = [...body.rows].map((row) => [valueOf(row, index), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (numeric ? a - b : a.localeCompare(b));
    });
    body.append(...rows.map(([, row]) => row));
  }));
}
