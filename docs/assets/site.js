// The theme makes a landmark of the copy button of every code block, all of one name; they are none. And it lets the keyboard
// reach no table that scrolls, and only the code that was too wide when it last looked.
new MutationObserver(() => {
  for (const bar of document.querySelectorAll("nav.md-code__nav:not([role])")) bar.setAttribute("role", "none");
  const scrolling = "pre > code:not([tabindex]), .md-typeset__scrollwrap:not([tabindex])";
  for (const part of document.querySelectorAll(scrolling)) part.setAttribute("tabindex", "0");
}).observe(document.documentElement, { attributeFilter: ["tabindex"], childList: true, subtree: true });
