// Label maps over their photo: the class of each pixel, the share of each class, and the layers to draw.

const DARK = [40, 40, 40]; // colour of ignored pixels in the error map
const MAX_LAYER_PIXELS = 2 ** 24; // largest canvas on phones; larger maps are drawn from every nth pixel

/**
 * Photo and label maps. Classes are 0..K-1, `ignored` is K, and in the error map `right` is K + 1.
 * A mode ("prediction", "labels", "errors") is {values, counts, total}: the class of each pixel, the number of pixels
 * of each class, and the number of pixels that shares refer to. In "errors", wrong pixels hold their true class.
 */
class LabelPicture {
  constructor(photo, colors, wrong, prediction, labels) {
    this.photo = photo;
    this.colors = colors;
    this.wrong = wrong; // colour of wrong pixels
    this.ignored = colors.length;
    this.right = colors.length + 1;
    this.width = prediction.width;
    this.height = prediction.height;
    this.step = Math.ceil(Math.sqrt((this.width * this.height) / MAX_LAYER_PIXELS));
    this.modes = { prediction: this.count(this.classesOf(prediction)) };
    if (labels) {
      if (labels.width !== this.width || labels.height !== this.height) {
        throw new Error("the prediction and the labels differ in size");
      }
      this.modes.labels = this.count(this.classesOf(labels));
      this.modes.errors = this.count(this.compare());
      this.modes.errors.total -= this.modes.labels.counts[this.ignored];
    }
  }

  /** Return the class indices with ignored pixels set to K. */
  classesOf({ values, ignored }) {
    const classes = new Uint16Array(values.length);
    for (let i = 0; i < values.length; i++) {
      const value = values[i];
      if (value !== ignored && value >= this.ignored) {
        throw new Error(`the label map holds the value ${value}, but there are ${this.ignored} classes`);
      }
      classes[i] = value === ignored ? this.ignored : value;
    }
    return classes;
  }

  compare() {
    const seen = this.modes.prediction.values, truth = this.modes.labels.values;
    return truth.map((value, i) => (value === this.ignored || value !== seen[i] ? value : this.right));
  }

  count(values) {
    const counts = new Uint32Array(this.right + 1);
    for (let i = 0; i < values.length; i++) counts[values[i]]++;
    return { values, counts, total: values.length };
  }

  /** Return the share of a class in a mode, 0..1. */
  share(mode, value) {
    const { counts, total } = this.modes[mode];
    return total ? counts[value] / total : 0;
  }

  /** Return the class of a pixel, or null outside the picture. */
  at(mode, x, y) {
    const inside = x >= 0 && y >= 0 && x < this.width && y < this.height;
    return inside ? this.modes[mode].values[y * this.width + x] : null;
  }

  /** Create the layers of a mode; `isolated` is the only class shown, or null for all. */
  paint(mode, isolated) {
    const tints = [...this.colors, null, null].map((color, value) => {
      if (isolated !== null && isolated !== value) return null;
      if (mode !== "errors") return color;
      return value < this.ignored ? this.wrong : value === this.ignored ? DARK : null;
    });
    this.tint = this.layer(mode, tints);
    this.veil = null;
    if (isolated !== null && mode !== "errors") {
      this.veil = this.layer(mode, tints.map((_, value) => (value === isolated ? null : DARK)));
      const context = this.veil.getContext("2d");
      context.globalCompositeOperation = "source-in";
      context.drawImage(this.grey(), 0, 0, this.veil.width, this.veil.height);
    }
  }

  /** Return a canvas with each pixel in the colour of its class, or transparent if the colour is null. */
  layer(mode, colors) {
    const { step } = this;
    const width = Math.ceil(this.width / step), height = Math.ceil(this.height / step);
    const table = new Uint32Array(colors.map((color) => packed(color)));
    const canvas = canvasOf(width, height), context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer), values = this.modes[mode].values;
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0, from = y * step * this.width; x < width; x++, from += step) pixels[i++] = table[values[from]];
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }

  /** Return the photo in pale grey, as in error_map of segvit/pictures/paint.py. */
  grey() {
    if (this.pale) return this.pale;
    this.pale = canvasOf(this.photo.naturalWidth, this.photo.naturalHeight);
    const context = this.pale.getContext("2d");
    context.drawImage(this.photo, 0, 0);
    const image = context.getImageData(0, 0, this.pale.width, this.pale.height), { data } = image;
    for (let i = 0; i < data.length; i += 4) {
      const light = 0.299 * data[i] + 0.587 * data[i + 1] + 0.114 * data[i + 2];
      data[i] = data[i + 1] = data[i + 2] = 90 + 0.6 * light;
    }
    context.putImageData(image, 0, 0);
    return this.pale;
  }

  /** Draw photo and layers so that pixel (x, y) of the map lies at (left + scale x, top + scale y). */
  draw(context, mode, opacity, { scale, left, top }) {
    context.setTransform(scale, 0, 0, scale, left, top);
    context.imageSmoothingQuality = "high";
    context.imageSmoothingEnabled = scale * this.width < 4 * this.photo.naturalWidth; // beyond, show single pixels
    context.drawImage(mode === "errors" ? this.grey() : this.photo, 0, 0, this.width, this.height);
    context.imageSmoothingEnabled = scale < 1; // enlarged, each pixel of the map keeps its own colour
    const size = [0, 0, this.tint.width * this.step, this.tint.height * this.step];
    if (this.veil) context.drawImage(this.veil, ...size);
    context.globalAlpha = opacity;
    context.drawImage(this.tint, ...size);
    context.globalAlpha = 1;
    context.setTransform(1, 0, 0, 1, 0, 0);
  }
}

/** Pack a colour into 32 bits in the byte order of the computer, as canvas pixels are stored. */
function packed(color) {
  return color ? new Uint32Array(new Uint8Array([...color, 255]).buffer)[0] : 0;
}

function canvasOf(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}
