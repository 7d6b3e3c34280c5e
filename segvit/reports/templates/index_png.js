// Reads class indices from an index PNG. The browser itself would return colours, which two classes may share.

const PNG_SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const GREY = 0, PALETTE = 3; // colour types

/** Return the bytes of a base64 data URI. */
function bytesOfUri(uri) {
  return Uint8Array.from(atob(uri.slice(uri.indexOf(",") + 1)), (letter) => letter.charCodeAt(0));
}

/**
 * Read the class index of every pixel, row by row, from a PNG with 8 bits (palette or grey) or 16 bits (grey).
 * Resolves to {width, height, values, ignored}, where `ignored` is the value of pixels without a class.
 */
async function readIndexPng(bytes) {
  const { header, packed } = splitChunks(bytes);
  const width = header.getUint32(0), height = header.getUint32(4);
  const depth = header.getUint8(8), colorType = header.getUint8(9), interlaced = header.getUint8(12);
  const readable = (depth === 8 && (colorType === PALETTE || colorType === GREY)) || (depth === 16 && colorType === GREY);
  if (!readable || interlaced) {
    throw new Error(`the label map is a PNG with ${depth} bits and colour type ${colorType}${interlaced ? ", interlaced" : ""}`);
  }
  if (typeof DecompressionStream === "undefined") {
    throw new Error("this browser is too old: it lacks DecompressionStream, which browsers have since 2023");
  }
  const stream = new Blob(packed).stream().pipeThrough(new DecompressionStream("deflate"));
  const rows = new Uint8Array(await new Response(stream).arrayBuffer());
  const pixelBytes = depth / 8, rowBytes = width * pixelBytes;
  if (rows.length !== height * (rowBytes + 1)) {
    throw new Error(`the label map holds ${rows.length} bytes for ${width} x ${height} pixels`);
  }
  const plain = undoFilters(rows, height, rowBytes, pixelBytes);
  if (depth === 8) return { width, height, values: plain, ignored: 255 };
  const values = new Uint16Array(width * height);
  for (let i = 0; i < values.length; i++) values[i] = (plain[2 * i] << 8) | plain[2 * i + 1];
  return { width, height, values, ignored: 65535 };
}

/** Return the header of a PNG as a DataView, and its compressed pixels as a list of arrays. */
function splitChunks(bytes) {
  if (PNG_SIGNATURE.some((byte, place) => bytes[place] !== byte)) throw new Error("the label map is not a PNG");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let header = null;
  const packed = [];
  for (let place = PNG_SIGNATURE.length; place + 12 <= bytes.length;) {
    const length = view.getUint32(place);
    const kind = String.fromCharCode(...bytes.subarray(place + 4, place + 8));
    const start = place + 8;
    if (kind === "IHDR") header = new DataView(bytes.buffer, bytes.byteOffset + start, length);
    if (kind === "IDAT") packed.push(bytes.subarray(start, start + length));
    place = start + length + 4; // 4: the checksum
  }
  if (!header) throw new Error("the label map has no header");
  return { header, packed };
}

/** Undo the filter that each row names in its first byte (PNG specification, section 9). */
function undoFilters(rows, height, rowBytes, pixelBytes) {
  const plain = new Uint8Array(height * rowBytes);
  for (let y = 0; y < height; y++) {
    const source = y * (rowBytes + 1) + 1, filter = rows[source - 1];
    const target = y * rowBytes;
    if (filter > 4) throw new Error(`row ${y} of the label map has the unknown filter ${filter}`);
    for (let x = 0; x < rowBytes; x++) {
      const left = x >= pixelBytes ? plain[target + x - pixelBytes] : 0;
      const above = y ? plain[target + x - rowBytes] : 0;
      const corner = y && x >= pixelBytes ? plain[target + x - rowBytes - pixelBytes] : 0;
      let guess = 0;
      if (filter === 1) guess = left;
      else if (filter === 2) guess = above;
      else if (filter === 3) guess = (left + above) >> 1;
      else if (filter === 4) guess = nearest(left, above, corner);
      plain[target + x] = rows[source + x] + guess; // the array keeps the lowest 8 bits
    }
  }
  return plain;
}

/** Paeth's predictor: return whichever of left, above and corner is nearest to left + above - corner. */
function nearest(left, above, corner) {
  const fromLeft = Math.abs(above - corner), fromAbove = Math.abs(left - corner);
  const fromCorner = Math.abs(left + above - 2 * corner);
  if (fromLeft <= fromAbove && fromLeft <= fromCorner) return left;
  return fromAbove <= fromCorner ? above : corner;
}
