// Charts of the report: the values under the pointer or at the arrow keys, and each chart as an SVG or PNG file.

const SVG = "http://www.w3.org/2000/svg";
const PNG_SCALE = 3; // pixels of a PNG per pixel of the page
const KEPT = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "font-size", "font-family", "font-weight"];

for (const figure of document.querySelectorAll("figure.chart")) {
  const svg = figure.querySelector("svg");
  if (!svg) continue;
  const readout = figure.appendChild(document.createElement("div"));
  readout.className = "readout";
  readout.hidden = true;
  if (svg.classList.contains("lines")) readLines(figure, svg, readout);
  else readCells(figure, svg, readout);
  if (figure.dataset.file) offerFiles(figure, svg);
}

/** Show the values of all lines at the step that is nearest to the pointer. */
function readLines(figure, svg, readout) {
  const lines = [...svg.querySelectorAll("polyline")].map((line) => ({
    name: line.dataset.name,
    color: line.classList[1],
    means: "means" in line.dataset,
    steps: JSON.parse(line.dataset.steps),
    values: JSON.parse(line.dataset.values),
    places: [...line.points].map(({ x, y }) => ({ x, y })),
  }));
  const stops = [...new Map(lines.flatMap(({ steps, places }) => steps.map((step, i) => [step, places[i].x])))].sort((a, b) => a[0] - b[0]);
  const mark = svg.appendChild(document.createElementNS(SVG, "g"));
  let at = -1;

  function show(stop) {
    at = Math.max(0, Math.min(stops.length - 1, stop));
    const [step, x] = stops[at];
    const near = lines.map((line) => ({ line, i: nearest(line.places, x) })).filter(({ i }) => i >= 0);
    readout.replaceChildren(paragraph(moment(step, near)));
    mark.replaceChildren(shape("line", { x1: x, x2: x, y1: svg.dataset.ceiling, y2: svg.dataset.floor, class: "cursor" }));
    for (const { line, i } of near) {
      const other = line.steps[i] === step ? "" : ` (step ${line.steps[i].toLocaleString("en")})`;
      readout.append(paragraph(line.name + other, line.values[i]));
      mark.append(shape("circle", { cx: line.places[i].x, cy: line.places[i].y, r: 3.5, class: `dot ${line.color}` }));
    }
    readout.hidden = false;
    const box = svg.getBoundingClientRect(), scale = box.width / svg.viewBox.baseVal.width;
    placeReadout(figure, readout, box.left + x * scale, box.top);
  }

  /** Name the step, or the steps if a line is drawn as means of several. */
  function moment(step, near) {
    const averaged = near.find(({ line, i }) => line.means && line.steps[i] === step);
    const first = averaged ? (averaged.line.steps[averaged.i - 1] ?? 0) + 1 : step;
    const words = (number) => number.toLocaleString("en");
    return first < step ? `mean of steps ${words(first)} to ${words(step)}` : `step ${words(step)}`;
  }

  function hide() {
    readout.hidden = true;
    mark.replaceChildren();
    at = -1;
  }

  follow(svg, hide, (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) * svg.viewBox.baseVal.width) / box.width;
    show(nearest(stops.map((stop) => ({ x: stop[1] })), x));
  });
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: (at < 0 ? stops.length : at) - 1, ArrowRight: at + 1, Home: 0, End: stops.length - 1 };
    if (event.key === "Escape") hide();
    else if (event.key in moves && !event.ctrlKey && !event.metaKey && !event.altKey) show(moves[event.key]);
    else return;
    event.preventDefault();
  });
}

/** Show the text of a matrix's cell, which is its title until a script runs. */
function readCells(figure, svg, readout) {
  const told = new Map();
  for (const title of [...svg.querySelectorAll("title")]) {
    told.set(title.parentNode, title.textContent);
    title.remove();
  }
  const hide = () => { readout.hidden = true; };
  follow(svg, hide, (event) => {
    const text = told.get(event.target);
    readout.hidden = !text;
    if (!text) return;
    readout.replaceChildren(paragraph(text));
    placeReadout(figure, readout, event.clientX, event.clientY);
  });
}

/** Call `show` while a pointer is over a chart. A finger's read-out stays until another place is touched. */
function follow(svg, hide, show) {
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
  document.addEventListener("pointerdown", (event) => { if (!svg.contains(event.target)) hide(); });
}

/** Return the index of the place whose x is nearest, or -1 if there are no places. */
function nearest(places, x) {
  let best = -1;
  places.forEach((place, i) => {
    if (best < 0 || Math.abs(place.x - x) < Math.abs(places[best].x - x)) best = i;
  });
  return best;
}

/** Put the read-out beside a point of the window, inside the figure. */
function placeReadout(figure, readout, x, y) {
  const box = figure.getBoundingClientRect(), gap = 12;
  const left = x - box.left + gap, room = Math.min(box.width, document.documentElement.clientWidth - box.left);
  const fits = left + readout.offsetWidth <= room;
  readout.style.left = `${Math.max(0, fits ? left : left - 2 * gap - readout.offsetWidth)}px`;
  readout.style.top = `${y - box.top + 4}px`;
}

function paragraph(name, value) {
  const line = document.createElement("p");
  line.append(...[name, value].filter((text) => text !== undefined).map((text) => {
    const part = document.createElement("span");
    part.textContent = text;
    return part;
  }));
  return line;
}

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// Files --------------------------------------------------------------------------------------------------------------

/** Add the buttons that save a chart. */
function offerFiles(figure, svg) {
  const group = document.createElement("span");
  group.className = "files";
  for (const kind of ["SVG", "PNG"]) {
    const button = document.createElement("button");
    const title = figure.querySelector("figcaption").textContent || svg.getAttribute("aria-label");
    Object.assign(button, { type: "button", textContent: kind, title: `Save this chart as ${kind}` });
    button.setAttribute("aria-label", `Save as ${kind}: ${title}`);
    button.addEventListener("click", () => saveChart(figure, svg, kind, title));
    group.append(button);
  }
  figure.querySelector("figcaption").append(group);
}

async function saveChart(figure, svg, kind, title) {
  const picture = standalone(figure, svg, title);
  const text = new XMLSerializer().serializeToString(picture);
  const file = `${figure.dataset.file.replace(/[^\p{L}\p{N}._-]+/gu, "-")}.${kind.toLowerCase()}`;
  if (kind === "SVG") return download(new Blob([text], { type: "image/svg+xml" }), file);
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = picture.getAttribute("width") * PNG_SCALE;
  canvas.height = picture.getAttribute("height") * PNG_SCALE;
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.toBlob((blob) => download(blob, file), "image/png");
}

/** Return the chart with its title and legend as a picture that needs no style sheet, in the colours of paper. */
function standalone(figure, svg, title) {
  const { width, height } = svg.viewBox.baseVal, edge = 10, head = 28;
  const keys = [...figure.querySelectorAll(".keys .key")];
  const whole = { width: width + 2 * edge, height: height + head + edge + (keys.length ? 22 : 0) };
  const picture = shape("svg", { xmlns: SVG, ...whole, viewBox: `0 0 ${whole.width} ${whole.height}` });
  const inner = shape("g", { transform: `translate(${edge} ${head})` });
  document.documentElement.dataset.files = "";
  const style = getComputedStyle(svg), ink = getComputedStyle(document.body).color;
  const words = { "font-family": style.fontFamily, "font-size": 12, fill: ink };
  for (const child of svg.children) {
    if (child.localName !== "g") inner.append(plain(child)); // a group holds the mark under the pointer
  }
  const heading = shape("text", { ...words, x: edge, y: 18, "font-weight": 600, "font-size": 13 });
  heading.textContent = title;
  picture.append(shape("rect", { width: "100%", height: "100%", fill: "#ffffff" }), heading, inner);
  let left = edge + 50;
  for (const key of keys) {
    const y = whole.height - 10, text = shape("text", { ...words, x: left + 22, y });
    text.textContent = key.textContent;
    picture.append(shape("rect", { x: left, y: y - 6, width: 16, height: 3, fill: getComputedStyle(key, "::before").backgroundColor }), text);
    left += 40 + 7 * key.textContent.length;
  }
  delete document.documentElement.dataset.files;
  return picture;
}

/** Copy an element of a chart with its style written into it. */
function plain(element) {
  const style = getComputedStyle(element), copy = element.cloneNode(true);
  for (const name of KEPT) copy.style.setProperty(name, rgb(style.getPropertyValue(name)));
  copy.style.removeProperty("--share");
  for (const attribute of ["class", "data-name", "data-means", "data-steps", "data-values"]) copy.removeAttribute(attribute);
  return copy;
}

const mixer = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });

/** Return a mixed colour as rgb, which every program reads; other values stay. */
function rgb(value) {
  if (!/^(oklab|color)\(/.test(value)) return value;
  mixer.fillStyle = value;
  mixer.fillRect(0, 0, 1, 1);
  const [red, green, blue] = mixer.getImageData(0, 0, 1, 1).data;
  return `rgb(${red}, ${green}, ${blue})`;
}

function download(blob, file) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: file });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
