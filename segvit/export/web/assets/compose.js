// The label map of a photo from the logits of its windows, a strip of rows at a time, as in segvit/inference/tiles.py.
// So the scores of all classes are never in memory for the whole photo.
//
// A view is {height, width, mirrored, plan, logits}: the photo at one scale, mirrored or not, and the logits of each of
// its windows. `scoresOf(logits, rows, columns)` resolves to the scores (K, y x) of a window from its logits and two
// matrices that up-sample them: rows (y, h) and columns (w, x).

import { bilinearRows, blend, scoreTaps, transposed } from "./resize.js";

const STRIP_ELEMENTS = 2 ** 22; // scores in a strip: 16 MB

/**
 * Return the class of the best score at each pixel of a photo of height x width: uint8, row by row.
 * With several views the softmax of the scores is averaged. `progress` gets the share that is done, 0..1.
 */
export async function composeLabels(views, numClasses, height, width, scoresOf, progress) {
  const labels = new Uint8Array(height * width);
  const taps = views.map((view) => ({ rows: scoreTaps(view.height, height), columns: scoreTaps(view.width, width) }));
  const widest = Math.max(width, ...views.map((view) => (view.width * Math.max(1, view.height / height))));
  const step = Math.max(Math.floor(STRIP_ELEMENTS / (numClasses * widest)), 1);
  for (let top = 0; top < height; top += step) {
    const bottom = Math.min(top + step, height);
    let total = null;
    for (const [number, view] of views.entries()) {
      const { rows, columns } = taps[number];
      const first = rows.low[top], last = rows.high[bottom - 1] + 1;
      let scores = await viewScores(view, numClasses, first, last, scoresOf);
      if (view.height !== height || view.width !== width) {
        scores = resized(scores, numClasses, last - first, view.width, rows, columns, top, bottom, first);
      }
      if (views.length > 1) softmax(scores, numClasses);
      if (total) for (let i = 0; i < total.length; i++) total[i] += scores[i];
      else total = scores;
    }
    writeBest(total, numClasses, labels.subarray(top * width, bottom * width));
    progress(bottom / height);
  }
  return labels;
}

/** Return the scores (K, last - first, W) of rows of a view, averaged over the windows that overlap. */
export async function viewScores(view, numClasses, first, last, scoresOf) {
  const { plan } = view, height = last - first, size = height * view.width;
  const total = new Float32Array(numClasses * size), count = new Float32Array(size);
  for (const [number, [top, left]] of plan.corners.entries()) {
    const from = Math.max(first, top), to = Math.min(last, top + plan.height);
    if (from >= to) continue;
    const { rows, columns } = windowMatrices(view.logits[number], plan, from - top, to - top);
    const scores = await scoresOf(view.logits[number], rows, columns);
    addWindow(scores, plan, { from: from - top, rows: to - from }, { total, count, numClasses, height, width: view.width, top: from - first, left });
  }
  if (plan.corners.length > 1) {
    for (let k = 0; k < numClasses; k++) for (let i = 0; i < size; i++) total[k * size + i] /= count[i];
  }
  if (view.mirrored) for (let row = 0; row < numClasses * height; row++) total.subarray(row * view.width, (row + 1) * view.width).reverse();
  return total;
}

/** Return the matrices that up-sample the masks of a window: rows (y, h) of its pixel rows, and columns (w, x). */
function windowMatrices({ masks, cell }, plan, from, to) {
  const [h, w] = masks.dims.slice(-2);
  return {
    rows: { values: bilinearRows(h, h * cell, from, to), dims: [to - from, h] },
    columns: { values: transposed(bilinearRows(w, w * cell, 0, plan.width), plan.width, w), dims: [w, plan.width] },
  };
}

/** Add the scores of a part of a window to the sum of a strip, times the weights of its pixels. */
function addWindow(scores, plan, part, strip) {
  for (let k = 0; k < strip.numClasses; k++) {
    for (let y = 0; y < part.rows; y++) {
      const source = (k * part.rows + y) * plan.width, place = (strip.top + y) * strip.width + strip.left;
      const target = k * strip.height * strip.width + place;
      const row = plan.weights ? plan.weights.rows[part.from + y] : 1;
      for (let x = 0; x < plan.width; x++) {
        const weight = plan.weights ? Math.fround(row * plan.weights.columns[x]) : 1;
        strip.total[target + x] += weight * scores[source + x];
        if (k === 0) strip.count[place + x] += weight;
      }
    }
  }
}

/** Resize rows of scores (K, height, width), of which the first is row `first`, to rows top..bottom of the photo. */
function resized(scores, numClasses, height, width, rows, columns, top, bottom, first) {
  const wide = columns.low.length, line = new Float32Array(width);
  const found = new Float32Array(numClasses * (bottom - top) * wide);
  for (let k = 0, target = 0; k < numClasses; k++) {
    for (let y = top; y < bottom; y++) {
      const upper = (k * height + rows.low[y] - first) * width, lower = (k * height + rows.high[y] - first) * width;
      blend(scores, upper, lower, rows.share[y], line);
      for (let x = 0; x < wide; x++) {
        const left = line[columns.low[x]];
        found[target++] = left + columns.share[x] * (line[columns.high[x]] - left);
      }
    }
  }
  return found;
}

/** Replace the scores (K, n) of each pixel by their softmax. */
function softmax(scores, numClasses) {
  const size = scores.length / numClasses;
  for (let i = 0; i < size; i++) {
    let highest = -Infinity, sum = 0;
    for (let place = i; place < scores.length; place += size) highest = Math.max(highest, scores[place]);
    for (let place = i; place < scores.length; place += size) sum += scores[place] = Math.exp(scores[place] - highest);
    for (let place = i; place < scores.length; place += size) scores[place] /= sum;
  }
}

/** Write the class of the best of the scores (K, n), the first if scores are equal. */
function writeBest(scores, numClasses, labels) {
  const best = scores.slice(0, labels.length);
  for (let k = 1; k < numClasses; k++) {
    const start = k * labels.length;
    for (let i = 0; i < labels.length; i++) {
      if (scores[start + i] > best[i]) {
        best[i] = scores[start + i];
        labels[i] = k;
      }
    }
  }
}
