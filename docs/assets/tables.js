/* Tables: a number stays on one line. On a narrow screen, those that end with a text are stacked, others scroll. */
(() => {
  const LONG = 60; // characters in a cell that need more than a narrow column
  for (const table of document.querySelectorAll(".md-typeset table:not([class])")) {
    for (const cell of table.querySelectorAll("td")) {
      if (/^\S{1,8}$/.test(cell.textContent)) {
        cell.style.whiteSpace = "nowrap"; // 2e-5 breaks at its sign
      }
    }
    const heads = [...table.querySelectorAll("th")], rows = [...table.querySelectorAll("tbody tr")];
    if (heads.length > 2 && rows.some((row) => row.lastElementChild.textContent.length > LONG)) {
      table.dataset.stacked = "";
      table.setAttribute("role", "table"); // which a table whose cells are not laid out as one loses
      for (const row of rows) {
        row.setAttribute("role", "row");
        [...row.children].forEach((cell, column) => {
          cell.setAttribute("role", "cell");
          if (column && column < heads.length - 1) {
            cell.dataset.label = heads[column].textContent;
          }
        });
      }
    }
  }
  const mark = () => {
    for (const frame of document.querySelectorAll(".md-typeset__scrollwrap")) {
      if (frame.scrollWidth > frame.clientWidth) { // the keyboard reaches it
        frame.tabIndex = 0;
      } else {
        frame.removeAttribute("tabindex");
      }
    }
  };
  addEventListener("load", mark);
  addEventListener("resize", mark);
})();
