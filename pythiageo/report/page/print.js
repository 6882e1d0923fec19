"use strict";
// On paper: light, every panel, also of what is folded, at the width of a page, and in words what was chosen.
function startPrint(figures, before = () => {}) {
  let opened = [];
  const print = (printing) => {
    theme.onPaper = printing;
    showTheme();
    document.documentElement.classList.toggle("printing", printing);
    if (printing) opened = [...document.querySelectorAll("details.fold:not([open])")];
    for (const each of opened) each.open = printing;
    for (const figure of figures()) figure.print(printing);
  };
  window.addEventListener("beforeprint", () => { before(); print(true); });
  window.addEventListener("afterprint", () => print(false));
}
