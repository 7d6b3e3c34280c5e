// The page: takes photos that are chosen, dropped or pasted, hands them to the worker, and shows the label maps.

import { indexPng } from "./write_index_png.js";
import { Viewer } from "./viewer.js";

const find = (id) => document.getElementById(id);
const LONGEST_STEM = 80; // characters of the names of downloaded files

let facts = null; // of the model: classes, palette, ...
let photo = null; // the newest: {id, file}
let viewer = null;
let address = ""; // of the photo that is shown
let worker = null;
let stopped = false; // true if the model cannot run

start();

function start() {
  if (!location.protocol.startsWith("http")) return; // the page shows how to serve it
  find("unserved").hidden = true;
  const lacking = ["Worker", "WebAssembly", "OffscreenCanvas", "CompressionStream"].filter((name) => !(name in window));
  if (lacking.length) return stop(`This browser is too old: it lacks ${lacking.join(", ")}. Use a browser of 2023 or later.`);
  find("drop").hidden = false;
  listen();
  work("Loading the model", 0);
  load();
}

async function load() {
  try {
    const reply = await fetch(new URL("../model.json", import.meta.url), { cache: "no-cache" });
    if (!reply.ok) throw new Error(`the server answered ${reply.status} to ${new URL(reply.url).pathname}`);
    facts = await reply.json();
  } catch (error) {
    return stop(`The model could not be loaded: ${error.message}`);
  }
  // Only a worker from a blob is bound by the policy of this page. One from a file would have a policy of its own.
  const script = `import ${JSON.stringify(new URL("worker.js", import.meta.url).href)};`;
  worker = new Worker(URL.createObjectURL(new Blob([script], { type: "text/javascript" })), { type: "module" });
  worker.addEventListener("message", ({ data }) => answer(data));
  worker.addEventListener("error", (event) => {
    stop(`This browser could not start the model${event.message ? `: ${event.message}` : ""}. Try a newer browser.`);
  });
  if (photo) worker.postMessage(photo);
}

function listen() {
  const input = find("file");
  find("choose").addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    take(input.files);
    input.value = ""; // so that the same photo can be chosen again
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dragging");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    take(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) take(event.clipboardData.files);
  });
}

/** Label the first of the files. */
function take(files) {
  if (stopped) return;
  if (!files.length) return refuse("That is not a file: save the picture first, then drop the file.");
  photo = { id: (photo?.id ?? 0) + 1, file: files[0] };
  find("alert").hidden = true;
  const others = files.length - 1;
  if (others) refuse(`${files[0].name} is labelled. The other ${others === 1 ? "file is" : `${others} files are`} left out: give one photo at a time.`);
  find("result").setAttribute("aria-busy", "true");
  work("Waiting for the model");
  worker?.postMessage(photo);
}

function answer(message) {
  if (message.id !== undefined && message.id !== photo.id) return; // of an older photo
  const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
  const acts = {
    loading: ({ done, total }) => work(`Loading the model: ${megabytes(done)} of ${megabytes(total)} MB`, done / total),
    ready: () => {
      say("The model is loaded");
      if (!photo) work("");
    },
    progress: ({ text, done }) => work(`${photo.file.name}: ${text}`, done),
    labels: (found) => show(found).catch((error) => refuse(`The label map cannot be shown: ${error.message}`)),
    refused: ({ text }) => refuse(text),
    broken: ({ text }) => stop(text),
  };
  acts[message.kind](message);
}

/** Show what is being done, and the share 0..1 that is finished, if it is known. An empty text ends it. */
function work(text, done = null) {
  find("work").hidden = !text;
  find("status").textContent = text;
  find("progress").hidden = false;
  if (done === null) find("progress").removeAttribute("value");
  else find("progress").value = done;
}

/** Announce to screen readers, which would read out all of the progress otherwise. */
function say(text) {
  find("said").textContent = text;
}

function refuse(text) {
  work("");
  find("result").setAttribute("aria-busy", "false");
  find("alert").textContent = text;
  find("alert").hidden = false;
}

/** Report that the model cannot run, and take no further photos. */
function stop(text) {
  stopped = true;
  find("drop").hidden = true;
  refuse(text);
}

async function show({ labels, height, width, windows, seconds }) {
  const { file } = photo;
  const png = await indexPng(labels, height, width, facts.palette);
  const root = find("viewer").content.firstElementChild.cloneNode(true), name = `Label map of ${file.name}`;
  root.setAttribute("aria-label", name);
  root.style.setProperty("--ratio", width / height);
  root.dataset.stem = file.name.replace(/\.[^.]*$/, "").replace(/[^\p{L}\p{N}._-]+/gu, "-").slice(0, LONGEST_STEM) || "picture";
  const picture = root.querySelector(".viewer-photo");
  URL.revokeObjectURL(address);
  address = picture.src = URL.createObjectURL(file);
  picture.alt = name;
  root.querySelector(".viewer-title").textContent = file.name;
  root.querySelector(".viewer-index").href = await dataUri(png);
  viewer?.close();
  viewer = new Viewer(root);
  find("result").replaceChildren(root);
  await viewer.start();
  find("drop").classList.add("small");
  find("choose").textContent = "Choose another photo";
  work(`${width} x ${height} pixels, ${windows === 1 ? "one pass" : `${windows} windows`}, ${seconds.toFixed(1)} s`);
  find("progress").hidden = true;
  find("result").setAttribute("aria-busy", "false");
  say(`${file.name} is labelled. ${root.querySelector(".viewer-canvas").getAttribute("aria-label")}`);
}

/** Resolve to a blob as a data URI, from which the viewer reads class indices. */
function dataUri(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(blob);
  });
}
