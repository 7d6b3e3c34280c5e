// The page of `segvit app`, around Gradio's own scripts: frames as high as their viewers, photos of a batch in a dialog,
// several photos dropped at once, and links to the API tab. The viewers run in sandboxed frames and only report a height.

(() => {
  "use strict";
  const HIGHEST = 4000; // CSS pixels

  /** Create an element with attributes; `text` may be empty. */
  const element = (name, text, attributes) => {
    const made = document.createElement(name);
    made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };

  /** Call `act` with the first element that `find` returns, as soon as it exists. */
  const whenFound = (find, act) => {
    const found = find();
    if (found) act(found);
    else setTimeout(() => whenFound(find, act), 100);
  };

  const tab = (name) => [...document.querySelectorAll("[role=tab]")].find((each) => each.textContent.trim() === name);

  // /?view=api opens the API tab: the address that users of Gradio know.
  if (new URLSearchParams(location.search).get("view") === "api") whenFound(() => tab("API"), (found) => found.click());

  // Some browsers give HEIC no type. Gradio would refuse it, and their dialogs for files would hide it.
  const HEIC = /[.](heic|heif|hif)$/i;
  const withType = (file) =>
    file.type || !HEIC.test(file.name) ? file : new File([file], file.name, { type: "image/heic" });
  const listOf = (files) => {
    const list = new DataTransfer();
    for (const file of files) list.items.add(withType(file));
    return list.files;
  };
  const photoInput = () => document.querySelector("#photo input[type=file]");

  document.addEventListener("change", ({ target }) => {
    if (target === photoInput() && target.files.length) target.files = listOf(target.files);
  }, true);

  // Gradio leaves the examples without a name to read out, and puts the button that adds photos into another one.
  new MutationObserver(() => {
    const input = photoInput();
    if (input?.accept === "image/*") input.accept += ",.heic,.heif,.hif";
    const examples = document.querySelectorAll("#examples .gallery-item");
    for (const [number, example] of examples.entries())
      if (!example.ariaLabel) example.ariaLabel = `Example ${number + 1}`;
    for (const outer of document.querySelectorAll("[aria-label='common.upload']")) {
      Object.assign(outer, { ariaLabel: "Add photos", title: "Add photos", role: "group", tabIndex: -1 });
    }
  }).observe(document, { childList: true, subtree: true });

  // A viewer reports its height.
  addEventListener("message", ({ source, data }) => {
    const frame = [...document.querySelectorAll(".panel iframe")].find((each) => each.contentWindow === source);
    const height = Number(data?.viewerHeight);
    if (frame && height > 0 && height < HIGHEST) frame.style.setProperty("--height", `${Math.ceil(height)}px`);
  });

  const give = (input, files) => {
    input.files = listOf(files);
    input.dispatchEvent(new Event("change", { bubbles: true }));
  };

  // Several photos dropped on the place of one photo become a batch. Without a handler, the browser would open them.
  const isOverPhoto = (event) => event.target.closest?.("#photo");
  document.addEventListener("dragover", (event) => { if (isOverPhoto(event)) event.preventDefault(); }, true);
  document.addEventListener("drop", (event) => {
    if (!isOverPhoto(event)) return;
    event.preventDefault();
    const dropped = [...(event.dataTransfer?.files ?? [])];
    if (dropped.length === 0 || (dropped.length === 1 && dropped[0].type)) return; // Gradio takes it
    event.stopPropagation();
    if (dropped.length === 1) return give(photoInput(), dropped);
    tab("Many photos").click();
    whenFound(() => document.querySelector("#photos input[type=file]"), (input) => give(input, dropped));
  }, true);

  // A photo of a batch opens in a dialog, and the arrow keys lead to the others.
  let dialog, shown = 0;
  const links = () => [...document.querySelectorAll(".batch a.open")];

  const show = (number) => {
    const all = links(), link = all[number];
    if (!link) return;
    shown = number;
    const frame = element("iframe", "", { src: link.href, title: link.title, sandbox: "allow-scripts allow-downloads" });
    dialog.querySelector("iframe")?.remove();
    dialog.append(frame);
    dialog.querySelector("output").textContent = `${number + 1} of ${all.length}`;
    dialog.querySelector("[data-step='-1']").disabled = number === 0;
    dialog.querySelector("[data-step='1']").disabled = number === all.length - 1;
  };

  const makeDialog = () => {
    const made = element("dialog", "", { class: "seen", "aria-label": "Label map of a photo" });
    const head = element("div", "", { class: "seen-head" });
    const close = element("button", "Close", { type: "button" });
    close.addEventListener("click", () => made.close());
    for (const [text, step] of [["Previous", -1], ["Next", 1]]) {
      const button = element("button", text, { type: "button", "data-step": step });
      button.addEventListener("click", () => show(shown + step));
      head.append(button);
    }
    head.append(element("output", "", {}), close);
    made.append(head);
    made.addEventListener("click", (event) => { if (event.target === made) made.close(); });
    made.addEventListener("close", () => made.querySelector("iframe")?.remove());
    document.body.append(made);
    return made;
  };

  document.addEventListener("keydown", ({ key }) => {
    if (!dialog?.open) return;
    if (key === "ArrowLeft") show(shown - 1);
    if (key === "ArrowRight") show(shown + 1);
  });

  document.addEventListener("click", (event) => {
    const link = event.target.closest?.(".batch a.open");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return; // these open a new tab
    event.preventDefault();
    dialog ??= makeDialog();
    dialog.showModal();
    show(links().indexOf(link));
  });
})();
