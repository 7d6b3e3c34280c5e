// Sizes and windows of a test protocol, as in segvit/inference/protocol.py and windows.py.

const SIGMA = 1 / 8; // standard deviation of Gaussian weights, as a share of a window's side

/** Return {height, width} in pixels that a photo is resized to at a scale of the protocol. */
export function protocolSize(height, width, protocol, scale) {
  const { resize_long: long, resize_short: short, resize_short_min: least } = protocol;
  if (long === null && short === null) return fitted(height, width, scale);
  const bounds = [];
  if (long !== null) bounds.push((long * scale) / Math.max(height, width));
  if (short !== null) bounds.push(Math.max(short * scale, least ?? 0) / Math.min(height, width));
  return fitted(height, width, Math.min(...bounds));
}

/** Multiply both sides by a factor, rounded half up, at least 1 pixel. */
function fitted(height, width, factor) {
  const scaled = (side) => Math.max(Math.floor(side * factor + 0.5), 1);
  return { height: scaled(height), width: scaled(width) };
}

/**
 * Return the windows of a resized photo: {height, width, canvas, corners, weights}. Each window shows height x width
 * pixels. `canvas` is the side that it is padded to, or null if the photo is looked at whole. `weights` are those of
 * the rows and columns of a window, or null if all count the same.
 */
export function planWindows(height, width, protocol) {
  if (protocol.mode !== "slide") return { height, width, canvas: null, corners: [[0, 0]], weights: null };
  const { window: side, stride, blend } = protocol;
  const [tops, lefts] = [height, width].map((length) => windowStarts(length, side, stride));
  const corners = tops.flatMap((top) => lefts.map((left) => [top, left]));
  const shown = { height: Math.min(side, height), width: Math.min(side, width) };
  const gaussian = blend === "gaussian" && corners.length > 1;
  const weights = gaussian ? { rows: gaussianWeights(shown.height), columns: gaussianWeights(shown.width) } : null;
  return { ...shown, canvas: side, corners, weights };
}

/** Return the first pixels of the windows along a side. The last window is shifted inside. */
export function windowStarts(length, window, stride) {
  if (length <= window) return [0];
  const count = Math.ceil((length - window) / stride) + 1;
  return Array.from({ length: count }, (_, index) => Math.min(index * stride, length - window));
}

function gaussianWeights(side) {
  return Float32Array.from({ length: side }, (_, place) => {
    const distance = (place - (side - 1) / 2) / (SIGMA * side);
    return Math.exp(-0.5 * distance * distance);
  });
}

/**
 * Cut the window at (top, left) out of an image {height, width, planes}: {planes, height, width}, padded with zeros on
 * the right and at the bottom. The model replaces the padding by the mean colour.
 */
export function cutWindow(image, plan, top, left, mirrored) {
  const height = plan.canvas ?? plan.height, width = plan.canvas ?? plan.width;
  const planes = new Uint8Array(3 * height * width);
  for (let plane = 0; plane < 3; plane++) {
    for (let y = 0; y < plan.height; y++) {
      const row = (plane * image.height + top + y) * image.width, target = (plane * height + y) * width;
      if (!mirrored) {
        planes.set(image.planes.subarray(row + left, row + left + plan.width), target);
        continue;
      }
      const last = row + image.width - 1 - left;
      for (let x = 0; x < plan.width; x++) planes[target + x] = image.planes[last - x];
    }
  }
  return { planes, height, width };
}
