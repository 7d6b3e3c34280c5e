// Mouse, pen and touch on a viewer's canvas. Hovering shows a tooltip, a click isolates a class, dragging pans, and the
// wheel and pinching zoom. To keep the page scrollable, the wheel zooms only with Ctrl, or once the picture is zoomed
// or focused.

class Pointers {
  constructor(viewer) {
    this.viewer = viewer;
    this.down = new Map(); // position of each pressed pointer
    this.start = null; // where the only pointer went down; null once it is no longer a click
    const { canvas } = viewer;
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.lift(event));
    canvas.addEventListener("pointercancel", (event) => this.drop(event));
    canvas.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && viewer.untell());
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    for (const name of ["touchstart", "touchmove"]) {
      const ours = (event) => event.touches.length > 1 && event.preventDefault(); // a pinch must not scroll the page
      canvas.addEventListener(name, ours, { passive: false });
    }
  }

  place(event) {
    const box = this.viewer.canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  press(event) {
    if (event.pointerType === "mouse" && event.button !== 0) return;
    this.viewer.canvas.setPointerCapture(event.pointerId);
    this.down.set(event.pointerId, this.place(event));
    this.start = this.down.size === 1 ? this.place(event) : null;
  }

  move(event) {
    const { viewer, down } = this, to = this.place(event), from = down.get(event.pointerId);
    if (!from) {
      viewer.tell(to.x, to.y);
      return;
    }
    if (this.start && distance(this.start, to) > IS_TAP[event.pointerType]) this.start = null;
    if (down.size === 2) this.pinch(event.pointerId, to);
    else if (down.size === 1 && !this.start && !viewer.view.fitted) viewer.pan(to.x - from.x, to.y - from.y);
    if (!this.start && !viewer.view.fitted) viewer.untell();
    else if (down.size === 1) viewer.tell(to.x, to.y, event.pointerType === "touch");
    if (down.size !== 1 || !this.start) down.set(event.pointerId, to);
  }

  /** Zoom and pan so that the picture follows the two fingers. */
  pinch(moved, to) {
    const { viewer, down } = this, from = down.get(moved);
    const other = [...down].find(([pointer]) => pointer !== moved)[1];
    const before = distance(from, other);
    if (before > 0) viewer.zoom(distance(to, other) / before, (from.x + other.x) / 2, (from.y + other.y) / 2);
    viewer.pan((to.x - from.x) / 2, (to.y - from.y) / 2);
  }

  lift(event) {
    const { viewer, start } = this, { x, y } = this.place(event);
    const clicked = start && this.down.has(event.pointerId);
    this.drop(event);
    if (!clicked) return;
    viewer.tell(x, y, event.pointerType === "touch");
    const value = viewer.under(x, y), shown = value !== null && value !== viewer.picture.right;
    viewer.isolate(shown && value !== viewer.isolated ? value : null);
  }

  drop(event) {
    this.down.delete(event.pointerId);
    this.start = null;
  }

  wheel(event) {
    const { viewer } = this, { x, y } = this.place(event);
    const asked = event.ctrlKey || event.metaKey; // a pinch on a touchpad sets ctrlKey
    const pixels = event.deltaY * [1, 16, 400][event.deltaMode];
    const stuck = viewer.view.fitted && pixels > 0;
    if (!asked && (stuck || (viewer.view.fitted && document.activeElement !== viewer.canvas))) {
      if (pixels < 0) viewer.note(`Use ${/Mac/.test(navigator.platform) ? "⌘" : "Ctrl"} + wheel to zoom`);
      return;
    }
    event.preventDefault();
    viewer.zoom(Math.exp(-pixels * (event.ctrlKey && Math.abs(pixels) < 50 ? 0.01 : 0.002)), x, y);
    viewer.tell(x, y);
  }
}

function distance(a, b) {
  return Math.hypot(a.x - b.x, a.y - b.y);
}

/** Start the viewer of each section when it first comes near the window. */
function startViewers() {
  const waiting = new Map();
  const observer = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      observer.unobserve(target);
      waiting.get(target).start();
    }
  }, { rootMargin: "400px" });
  for (const root of document.querySelectorAll("section.viewer")) {
    waiting.set(root, new Viewer(root));
    observer.observe(root);
  }
}

startViewers();
