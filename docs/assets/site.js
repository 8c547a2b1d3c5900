// The theme makes a landmark of the copy button of every code block, all of one name; they are none. And it lets the keyboard
// reach only the blocks that were too wide when it last looked.
new MutationObserver(() => {
  for (const bar of document.querySelectorAll("nav.md-code__nav:not([role])")) bar.setAttribute("role", "none");
  for (const code of document.querySelectorAll("pre > code:not([tabindex])")) code.setAttribute("tabindex", "0");
}).observe(document.documentElement, { attributeFilter: ["tabindex"], childList: true, subtree: true });
