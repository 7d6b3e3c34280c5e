// Legend of a viewer: one row per class, the largest first. A click on a row shows only that class.

const MANY = 12; // number of classes above which there is a filter box

class Legend {
  constructor(viewer) {
    this.viewer = viewer;
    this.rows = [];
    this.absentShown = false;
    this.box = viewer.find("filter");
    this.box.hidden = viewer.classes.length <= MANY;
    this.box.placeholder = `Filter ${viewer.classes.length} classes`;
    this.box.addEventListener("input", () => this.filter());
    this.none = element("li", "viewer-none");
    this.more = element("button", "viewer-more", { type: "button" });
    this.more.addEventListener("click", () => {
      this.absentShown = !this.absentShown;
      this.filter();
    });
  }

  /** Write the rows of the viewer's mode. Absent classes come last and are collapsed. */
  write() {
    const { viewer } = this, { picture, mode } = viewer, { counts } = picture.modes[mode];
    const values = [...viewer.classes.keys()];
    if (counts[picture.ignored] && mode !== "errors") values.push(picture.ignored);
    values.sort((a, b) => counts[b] - counts[a] || a - b);
    const widest = picture.share(mode, values[0]) || 1;
    this.rows = values.map((value) => this.row(value, widest));
    const foot = element("li", "");
    foot.append(this.more);
    viewer.find("legend").replaceChildren(...this.rows.map((row) => row.item), this.none, foot);
    viewer.find("caption").textContent = this.caption();
    this.filter();
  }

  row(value, widest) {
    const { viewer } = this, { picture, mode } = viewer, name = viewer.name(value);
    const absent = picture.modes[mode].counts[value] === 0, share = picture.share(mode, value);
    const item = element("li", "");
    const button = element("button", "viewer-row", { type: "button", disabled: absent, title: name });
    const chip = element("i", "viewer-chip"), bar = element("span", "viewer-bar");
    colorChip(chip, viewer.color(value));
    bar.style.setProperty("--part", share / widest);
    button.append(
      chip,
      element("span", "viewer-name", { textContent: name, dir: "auto" }),
      element("span", "viewer-share", { textContent: absent ? "–" : percent(share) }),
      bar,
    );
    button.dataset.value = value;
    button.addEventListener("click", () => {
      button.focus({ preventScroll: true }); // one browser does not focus a clicked button
      viewer.isolate(viewer.isolated === value ? null : value);
    });
    item.append(button);
    return { value, absent, item, button, key: searched(name) };
  }

  caption() {
    const { picture, mode } = this.viewer;
    if (mode !== "errors") return "Share of the picture";
    const { counts, total } = picture.modes.errors, wrong = total - counts[picture.right];
    return wrong ? `${percent(wrong / total)} wrong, by true class` : "No pixel is wrong";
  }

  /** Describe the largest classes in words. */
  summary() {
    const { viewer } = this, largest = this.rows.filter((row) => !row.absent).slice(0, 5);
    const told = ({ value }) => `${viewer.name(value)} ${percent(viewer.picture.share(viewer.mode, value))}`;
    return largest.map(told).join(", ");
  }

  /** Show the rows whose name contains the typed text. If nothing is typed, show the classes present. */
  filter() {
    const typed = searched(this.box.hidden ? "" : this.box.value.trim());
    for (const row of this.rows) {
      row.item.hidden = typed ? !row.key.includes(typed) : row.absent && !this.absentShown;
    }
    this.none.hidden = this.rows.some((row) => !row.item.hidden);
    this.none.textContent = typed ? "No class matches" : "None";
    const absent = this.rows.filter((row) => row.absent).length;
    const what = this.viewer.mode === "errors" ? "without errors" : "not in the picture";
    this.more.hidden = Boolean(typed) || !absent;
    this.more.textContent = this.absentShown ? `Hide the ${absent} ${what}` : `${absent} more ${what}`;
    this.more.setAttribute("aria-expanded", this.absentShown);
  }

  /** Mark the only class shown, or none if null. */
  press(value) {
    for (const row of this.rows) row.button.setAttribute("aria-pressed", row.value === value);
    this.viewer.find("legend").classList.toggle("isolating", value !== null);
  }

  /** Mark the class under the cursor, or none if null. */
  point(value) {
    for (const row of this.rows) row.button.classList.toggle("under", row.value === value);
  }
}

function element(name, className, properties = {}) {
  return Object.assign(document.createElement(name), { className }, properties);
}

function colorChip(chip, color) {
  chip.classList.toggle("none", !color);
  chip.style.backgroundColor = color ? `rgb(${color.join(",")})` : "";
}

/** Format a share as in the legends of segvit's pictures. */
function percent(share) {
  return share > 0 && share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
}

/** Return a text without case and accents, for searching. */
function searched(text) {
  return text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
}
