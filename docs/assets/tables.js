/* Tables that are wider than the screen scroll; this lets the keyboard reach them. */
(() => {
  const mark = () => {
    for (const frame of document.querySelectorAll(".md-typeset__scrollwrap")) {
      if (frame.scrollWidth > frame.clientWidth) {
        frame.tabIndex = 0;
      } else {
        frame.removeAttribute("tabindex");
      }
    }
  };
  addEventListener("load", mark);
  addEventListener("resize", mark);
})();
