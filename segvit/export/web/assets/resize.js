// Bilinear resizing with half-pixel centres and without antialiasing, as in segvit/utils/resize.py.
// A browser's own resizing is not specified, so labels would depend on the browser.

const { fround } = Math;

/**
 * Return the two neighbours of each of `now` new places among `old` values on a line, and the share of the second:
 * {low, high, share}. Each step is rounded to float32, as in the pixels that models were trained on.
 */
export function pixelTaps(old, now) {
  const scale = fround(old / now);
  return taps(old, now, (place) => Math.min(Math.max(fround(fround((place + 0.5) * scale) - 0.5), 0), old - 1));
}

/** Return the taps of maps of scores: only the scale and then each coordinate are rounded to float32. */
export function scoreTaps(old, now) {
  const scale = fround(old / now);
  return taps(old, now, (place) => fround(Math.max(scale * (place + 0.5) - 0.5, 0)));
}

function taps(old, now, centre) {
  const low = new Int32Array(now), high = new Int32Array(now), share = new Float32Array(now);
  for (let place = 0; place < now; place++) {
    const at = centre(place);
    low[place] = Math.min(Math.floor(at), old - 1);
    high[place] = Math.min(low[place] + 1, old - 1);
    share[place] = at - low[place];
  }
  return { low, high, share };
}

/**
 * Return rows `from` to `to` of the matrix that resizes a line of `old` values to `now`: float32 (to - from, old).
 * It up-samples the masks of a window from tokens to pixels.
 */
export function bilinearRows(old, now, from, to) {
  const scale = fround(old / now), matrix = new Float32Array((to - from) * old);
  for (let place = from; place < to; place++) {
    const at = fround(Math.max(fround(fround(scale * (place + 0.5)) - 0.5), 0));
    const low = Math.min(Math.floor(at), old - 1), high = Math.min(low + 1, old - 1), share = fround(at - low);
    matrix[(place - from) * old + low] += fround(1 - share);
    matrix[(place - from) * old + high] += share;
  }
  return matrix;
}

/** Return a matrix (rows, columns) as (columns, rows). */
export function transposed(matrix, rows, columns) {
  const turned = new Float32Array(matrix.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) turned[column * rows + row] = matrix[row * columns + column];
  }
  return turned;
}

/** Resize an image {height, width, planes: uint8 (3, height, width)} to another size. */
export function resizeImage(image, height, width) {
  if (image.height === height && image.width === width) return image;
  const rows = pixelTaps(image.height, height), columns = pixelTaps(image.width, width);
  const planes = new Uint8Array(3 * height * width), line = new Float32Array(image.width);
  for (let plane = 0, target = 0; plane < 3; plane++) {
    const start = plane * image.height * image.width;
    for (let y = 0; y < height; y++) {
      blend(image.planes, start + rows.low[y] * image.width, start + rows.high[y] * image.width, rows.share[y], line);
      for (let x = 0; x < width; x++) {
        const left = line[columns.low[x]], right = line[columns.high[x]];
        planes[target++] = rounded(fround(left + columns.share[x] * (right - left)));
      }
    }
  }
  return { height, width, planes };
}

/** Write the mean of two rows of `values` into `line`; the second row counts `share`. */
export function blend(values, upper, lower, share, line) {
  for (let x = 0; x < line.length; x++) {
    const above = values[upper + x];
    line[x] = above + share * (values[lower + x] - above);
  }
}

/** Round to the nearest whole number, and a half to the even one. */
function rounded(value) {
  const up = Math.floor(value + 0.5);
  return up - value === 0.5 && up % 2 ? up - 1 : up;
}
