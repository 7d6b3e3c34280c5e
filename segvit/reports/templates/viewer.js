// Viewer of a label map over its photo. Every <section class="viewer"> of the page becomes one.
// Class names are untrusted and are only set as text.

const LARGEST_PIXEL = 40; // maximum size of a pixel of the map, in CSS pixels
const ZOOM_STEP = 1.5, PAN_STEP = 60;
const IS_TAP = { mouse: 4, touch: 12, pen: 8 }; // maximum movement of a pointer during a click, in CSS pixels
const IDLE = { fitted: true, scale: 1, left: 0, top: 0 };

class Viewer {
  constructor(root) {
    this.root = root;
    this.classes = JSON.parse(root.dataset.classes);
    this.colors = JSON.parse(root.dataset.palette);
    this.canvas = this.find("canvas");
    this.stage = this.find("stage");
    this.mode = "prediction";
    this.isolated = null; // the only class shown; null: all
    this.opacity = 0.6;
    this.view = { ...IDLE }; // in CSS pixels
    this.closing = new AbortController();
    this.legend = new Legend(this);
  }

  find(name) {
    return this.root.querySelector(`.viewer-${name}`);
  }

  /** Read the photo and the maps, then show the controls. */
  async start() {
    try {
      const index = this.find("index"), photo = this.find("photo");
      const bytes = bytesOfUri(index.href), { truth } = this.root.dataset;
      const prediction = await readIndexPng(bytes);
      const labels = truth ? await readIndexPng(bytesOfUri(truth)) : null;
      await photo.decode();
      this.picture = new LabelPicture(photo, this.colors, JSON.parse(this.root.dataset.wrong), prediction, labels);
      index.href = URL.createObjectURL(new Blob([bytes], { type: "image/png" })); // browsers refuse long data URIs
      index.download = `${this.root.dataset.stem}.png`;
    } catch (error) {
      this.note(`The label map cannot be shown: ${error.message}.`, true);
      return;
    }
    this.find("modes").hidden = !this.picture.modes.labels;
    for (const name of ["canvas", "zoom", "side", "foot"]) this.find(name).hidden = false;
    this.find("photo").hidden = true;
    this.listen();
    this.show(this.mode);
    new ResizeObserver(() => this.fit()).observe(this.stage);
    this.root.dataset.ready = "";
  }

  /** Let go of the document, when another viewer takes this one's place. */
  close() {
    this.closing.abort();
  }

  listen() {
    const { root, canvas } = this;
    for (const button of root.querySelectorAll("[data-mode]")) {
      button.addEventListener("click", () => this.show(button.dataset.mode));
    }
    const zooms = { in: ZOOM_STEP, out: 1 / ZOOM_STEP, fit: 0 };
    for (const button of root.querySelectorAll("[data-zoom]")) {
      button.addEventListener("click", () => this.zoom(zooms[button.dataset.zoom]));
    }
    const slider = root.querySelector("input[type=range]");
    const told = root.querySelector("output");
    slider.addEventListener("input", () => {
      this.opacity = slider.value / 100;
      told.textContent = `${slider.value} %`;
      this.redraw();
    });
    slider.dispatchEvent(new Event("input")); // browsers keep the slider's position over a reload
    this.find("release").addEventListener("click", () => this.isolate(null));
    this.find("overlay").addEventListener("click", () => this.saveOverlay());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && event.target !== this.find("filter")) this.isolate(null);
    }, { signal: this.closing.signal });
    canvas.addEventListener("keydown", (event) => this.key(event));
    new Pointers(this);
  }

  // Contents ---------------------------------------------------------------------------------------------------------

  show(mode) {
    this.mode = mode;
    for (const button of this.root.querySelectorAll("[data-mode]")) {
      button.setAttribute("aria-pressed", button.dataset.mode === mode);
    }
    if (this.isolated !== null && !this.picture.modes[mode].counts[this.isolated]) this.isolated = null;
    this.legend.write();
    this.canvas.setAttribute("aria-label", `${this.root.getAttribute("aria-label")}, ${mode}: ${this.legend.summary()}`);
    this.isolate(this.isolated);
  }

  /** Show one class, or all if null. */
  isolate(value) {
    const changed = value !== this.isolated;
    this.isolated = value;
    this.picture.paint(this.mode, value);
    this.legend.press(value);
    this.find("release").hidden = value === null;
    if (changed) this.find("said").textContent = value === null ? "All classes are shown" : `Only ${this.name(value)} is shown`;
    this.redraw();
  }

  name(value) {
    return value < this.classes.length ? this.classes[value] : value === this.picture.ignored ? "ignored" : "right";
  }

  /** Return the colour of a class, or null. */
  color(value) {
    return value < this.classes.length ? this.colors[value] : null;
  }

  // View -------------------------------------------------------------------------------------------------------------

  /** Adapt to the stage's new size. */
  fit() {
    const { clientWidth: width, clientHeight: height } = this.stage, ratio = window.devicePixelRatio || 1;
    if (!width || !height) return;
    const middle = this.toPicture(this.width / 2, this.height / 2);
    [this.width, this.height] = [width, height];
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    if (this.view.fitted) this.place(this.smallest(), 0, 0);
    else this.place(this.view.scale, width / 2 - middle.x * this.view.scale, height / 2 - middle.y * this.view.scale);
  }

  /** Return the scale at which the whole picture is visible. */
  smallest() {
    return Math.min(this.width / this.picture.width, this.height / this.picture.height);
  }

  largest() {
    return Math.max(LARGEST_PIXEL, 4 * this.smallest());
  }

  /** Set the view. A picture larger than the stage covers it; a smaller one is centred. */
  place(scale, left, top) {
    const least = this.smallest(), kept = Math.min(Math.max(scale, least), this.largest());
    const settle = (place, room, size) => (size <= room ? (room - size) / 2 : Math.min(0, Math.max(room - size, place)));
    this.view = {
      fitted: kept <= least * 1.0001,
      scale: kept,
      left: settle(left, this.width, this.picture.width * kept),
      top: settle(top, this.height, this.picture.height * kept),
    };
    const times = kept / least;
    this.root.querySelector("[data-zoom=fit]").textContent = `${times < 9.95 ? Number(times.toFixed(1)) : Math.round(times)}×`;
    this.root.querySelector("[data-zoom=out]").disabled = this.view.fitted;
    this.root.querySelector("[data-zoom=in]").disabled = kept >= this.largest() * 0.9999;
    this.canvas.classList.toggle("zoomed", !this.view.fitted);
    this.redraw();
  }

  /** Zoom by a factor around the point (x, y) of the stage; 0 shows the whole picture. */
  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const scale = Math.min(Math.max(this.view.scale * factor, this.smallest()), this.largest());
    const point = this.toPicture(x, y);
    this.place(scale, x - point.x * scale, y - point.y * scale);
  }

  pan(dx, dy) {
    this.place(this.view.scale, this.view.left + dx, this.view.top + dy);
  }

  toPicture(x, y) {
    return { x: (x - this.view.left) / this.view.scale, y: (y - this.view.top) / this.view.scale };
  }

  /** Return the class at the point (x, y) of the stage, or null. */
  under(x, y) {
    const point = this.toPicture(x, y);
    return this.picture.at(this.mode, Math.floor(point.x), Math.floor(point.y));
  }

  key(event) {
    const pans = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const zooms = { "+": ZOOM_STEP, "=": ZOOM_STEP, "-": 1 / ZOOM_STEP, 0: 0 };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in zooms) this.zoom(zooms[event.key]);
    else if (event.key in pans && !this.view.fitted) this.pan(...pans[event.key].map((part) => part * PAN_STEP));
    else return;
    event.preventDefault();
  }

  redraw() {
    if (!this.width || this.drawing) return;
    this.drawing = requestAnimationFrame(() => {
      this.drawing = 0;
      const { canvas, view } = this, context = canvas.getContext("2d"), ratio = canvas.width / this.width;
      context.clearRect(0, 0, canvas.width, canvas.height);
      const place = { scale: view.scale * ratio, left: view.left * ratio, top: view.top * ratio };
      this.picture.draw(context, this.mode, this.opacity, place);
    });
  }

  // Tooltip and messages ---------------------------------------------------------------------------------------------

  /** Show the tooltip for the point (x, y) of the stage; `above` it if a finger covers the place below. */
  tell(x, y, above = false) {
    const tip = this.find("tip"), value = this.under(x, y);
    tip.hidden = value === null;
    this.legend.point(value);
    if (value === null) return;
    const wrong = this.mode === "errors" && value < this.picture.ignored;
    tip.dataset.value = value;
    colorChip(tip.querySelector(".viewer-chip"), this.color(value));
    tip.querySelector(".viewer-chip").hidden = value === this.picture.right;
    tip.querySelector("bdi").textContent = this.name(value);
    tip.querySelector("small").textContent = wrong ? `predicted as ${this.seen(x, y)}` : "";
    const counted = this.mode !== "errors" || value !== this.picture.ignored;
    tip.querySelector(".viewer-share").textContent = counted ? percent(this.picture.share(this.mode, value)) : "";
    const { offsetWidth: width, offsetHeight: height } = tip, gap = above ? 28 : 14;
    const left = above ? x - width / 2 : x + gap + width > this.width ? x - gap - width : x + gap;
    const top = above || y + gap + height > this.height ? y - gap - height : y + gap;
    tip.style.left = `${Math.max(4, Math.min(left, this.width - width - 4))}px`;
    tip.style.top = `${Math.max(4, top)}px`;
  }

  /** Return the name of the class predicted at a point of the stage. */
  seen(x, y) {
    const point = this.toPicture(x, y);
    return this.name(this.picture.at("prediction", Math.floor(point.x), Math.floor(point.y)));
  }

  untell() {
    this.find("tip").hidden = true;
    this.legend.point(null);
  }

  /** Show a message at the bottom of the picture: an error that stays, or a hint that disappears. */
  note(text, lasting = false) {
    const note = this.find("note");
    note.textContent = text;
    note.setAttribute("role", lasting ? "alert" : "status");
    note.classList.toggle("lasting", lasting);
    note.classList.toggle("shown", Boolean(text));
    clearTimeout(this.noteTimer);
    if (!lasting) this.noteTimer = setTimeout(() => note.classList.remove("shown"), 1800);
  }

  /** Save the picture as shown, in the size of the map. */
  saveOverlay() {
    const canvas = canvasOf(this.picture.width, this.picture.height), context = canvas.getContext("2d");
    this.picture.draw(context, this.mode, this.opacity, { scale: 1, left: 0, top: 0 });
    canvas.toBlob((blob) => {
      if (!blob) {
        this.note("This browser cannot save a picture of this size.", true);
        return;
      }
      const link = element("a", "", { href: URL.createObjectURL(blob), download: `${this.root.dataset.stem}_shown.png` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    }, "image/png");
  }
}
