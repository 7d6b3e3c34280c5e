// The thread that runs the model, so that the page stays responsive.
//
// It gets {id, file}, and answers with messages {kind, id, ...}:
// loading {done, total} in bytes, ready {threads}, progress {text, done 0..1}, labels {labels, height, width, windows,
// seconds}, or refused {text}. A newer photo stops an older one between two windows.

import { env, InferenceSession, Tensor } from "../runtime/ort.js";
import { composeLabels } from "./compose.js";
import { Refusal, readPhoto } from "./photo.js";
import { resizeImage } from "./resize.js";
import { cutWindow, planWindows, protocolSize } from "./windows.js";

const MOST_THREADS = 8;
const near = (name) => new URL(name, import.meta.url);
const send = (kind, content = {}) => postMessage({ kind, ...content });

let latest = 0; // id of the newest photo
const loading = load();

addEventListener("message", async ({ data: { id, file } }) => {
  latest = id;
  try {
    const model = await loading;
    if (model && id === latest) await label(model, id, file);
  } catch (error) {
    if (error instanceof Stopped) return;
    send("refused", { id, text: error instanceof Refusal ? error.message : `The model failed on ${file.name}: ${error.message}` });
  }
});

/** Thrown when a newer photo has arrived. */
class Stopped extends Error {}

/** Load the facts and the sessions of the model; null if that failed. */
async function load() {
  try {
    const threads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency ?? 1, MOST_THREADS) : 1;
    env.wasm.numThreads = threads;
    env.wasm.wasmPaths = { wasm: near("../runtime/ort-wasm-simd-threaded.wasm").href };
    env.logLevel = "error";
    const facts = await (await fetched("../model.json")).json();
    const bytes = await downloaded(await fetched("../model.onnx"), facts.bytes);
    const options = { executionProviders: ["wasm"], logSeverityLevel: 3 };
    const network = await InferenceSession.create(bytes, options);
    const composition = await InferenceSession.create(new Uint8Array(await (await fetched("scores.onnx")).arrayBuffer()), options);
    send("ready", { threads });
    return { facts, network, composition };
  } catch (error) {
    send("broken", { text: `The model could not be loaded: ${error.message}` });
    return null;
  }
}

async function fetched(name) {
  const answer = await fetch(near(name), { cache: "no-cache" }); // the files of one export belong together
  if (!answer.ok) throw new Error(`the server answered ${answer.status} to ${near(name).pathname}`);
  return answer;
}

/** Return the bytes of an answer, and report how many have come. */
async function downloaded(answer, total) {
  const bytes = new Uint8Array(total), reader = answer.body.getReader();
  let done = 0;
  for (;;) {
    const { value, done: ended } = await reader.read();
    if (ended) break;
    if (done + value.length > total) throw new Error(`model.onnx is not the file of this page: it has more than ${total} bytes`);
    bytes.set(value, done);
    done += value.length;
    send("loading", { done, total });
  }
  if (done !== total) throw new Error(`model.onnx has ${done} of ${total} bytes`);
  return bytes;
}

async function label(model, id, file) {
  const started = performance.now();
  send("progress", { id, text: "Reading the photo", done: 0 });
  const photo = await readPhoto(file);
  const views = planViews(model.facts, photo, file.name);
  const total = views.reduce((sum, view) => sum + view.plan.corners.length, 0);
  let done = 0;
  for (const view of views) {
    const image = resizeImage(photo, view.height, view.width);
    for (const [top, left] of view.plan.corners) {
      await pause(id);
      send("progress", { id, text: total > 1 ? `Window ${done + 1} of ${total}` : "Running the model", done: done / (total + 1) });
      view.logits.push(await run(model, cutWindow(image, view.plan, top, left, view.mirrored), view.plan));
      done++;
    }
  }
  const composed = (share) => send("progress", { id, text: "Composing the label map", done: (total + share) / (total + 1) });
  const scoresOf = async (...parts) => {
    await pause(id);
    return scores(model, ...parts);
  };
  const labels = await composeLabels(views, model.facts.classes.length, photo.height, photo.width, scoresOf, composed);
  const seconds = (performance.now() - started) / 1000;
  postMessage({ kind: "labels", id, labels, height: photo.height, width: photo.width, windows: total, seconds }, [labels.buffer]);
}

/** Return the views of a photo under the protocol: one at each scale, and one mirrored too if the protocol flips. */
function planViews({ protocol, least }, photo, name) {
  return protocol.scales.flatMap((scale) => {
    const size = protocolSize(photo.height, photo.width, protocol, scale);
    const plan = planWindows(size.height, size.width, protocol), smallest = plan.canvas ?? Math.min(size.height, size.width);
    if (smallest < least) {
      throw new Refusal(`${name} is too small for this model: its shorter side is ${smallest} pixels, and ${least} are needed.`);
    }
    return (protocol.flip ? [false, true] : [false]).map((mirrored) => ({ ...size, mirrored, plan, logits: [] }));
  });
}

/** Let newer messages arrive, and stop if there is a newer photo. */
async function pause(id) {
  await new Promise((resolve) => setTimeout(resolve));
  if (id !== latest) throw new Stopped();
}

/** Return the logits of one window. */
async function run({ facts, network }, { planes, height, width }, plan) {
  const found = await network.run({
    images: new Tensor("uint8", planes, [1, 3, height, width]),
    valid: new Tensor("int64", BigInt64Array.from([plan.height, plan.width], BigInt), [2]),
  });
  const [classes, masks] = [found.class_logits, found.mask_logits].map(({ data, dims }) => ({ data, dims: dims.slice(1) }));
  return { classes, masks, cell: facts.cell };
}

/** Return the scores (K, y x) of a part of a window. */
async function scores({ composition }, { classes, masks }, rows, columns) {
  const found = await composition.run({
    class_logits: new Tensor("float32", classes.data, classes.dims),
    mask_logits: new Tensor("float32", masks.data, masks.dims),
    rows: new Tensor("float32", rows.values, rows.dims),
    columns: new Tensor("float32", columns.values, columns.dims),
  });
  return found.scores.data;
}
