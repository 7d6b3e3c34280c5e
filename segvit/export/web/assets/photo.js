// Read the pixels of a photo: upright, in 8 bits, transparency over white, as in segvit/data/images.py.

export const MOST_MEGAPIXELS = 50; // a photo of this size takes 350 MB
const STRIP_ROWS = 1024; // a canvas of a whole photo would be too large for some browsers

/** An error whose text is for the user. */
export class Refusal extends Error {}

/**
 * Read an image file: {height, width, planes: uint8 (3, height, width)}.
 * Colour profiles are ignored, as models were trained without them.
 */
export async function readPhoto(file) {
  const bitmap = await opened(file);
  try {
    const { height, width } = bitmap, megapixels = (height * width) / 1e6;
    if (megapixels > MOST_MEGAPIXELS) {
      const size = `${width} x ${height} pixels (${Math.round(megapixels)} megapixels)`;
      throw new Refusal(`${file.name} has ${size}; the limit is ${MOST_MEGAPIXELS} megapixels. Make it smaller, or use segvit predict.`);
    }
    return { height, width, planes: planesOf(bitmap) };
  } finally {
    bitmap.close();
  }
}

async function opened(file) {
  try {
    return await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new Refusal(`${file.name} cannot be read as an image by this browser. Give a JPEG, PNG or WebP photo.`);
  }
}

function planesOf(bitmap) {
  const { height, width } = bitmap, size = height * width, planes = new Uint8Array(3 * size);
  const canvas = new OffscreenCanvas(width, Math.min(height, STRIP_ROWS));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let top = 0; top < height; top += STRIP_ROWS) {
    const rows = Math.min(STRIP_ROWS, height - top);
    context.fillStyle = "white";
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, -top);
    const { data } = context.getImageData(0, 0, width, rows);
    for (let i = 0, target = top * width; i < data.length; i += 4, target++) {
      planes[target] = data[i];
      planes[size + target] = data[i + 1];
      planes[2 * size + target] = data[i + 2];
    }
  }
  return planes;
}
