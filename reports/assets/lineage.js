// Follows the lines of a table or model in the picture of where tables come from.
(() => {
  "use strict";

  const select = document.getElementById("lineage-table");
  if (!select) return;
  const section = document.getElementById("lineage");
  const names = [...section.querySelectorAll("text[data-node]")];
  const lines = [...section.querySelectorAll("path[data-from]")];
  const words = document.getElementById("lineage-words");

  // All that a node is reached from (or, the other way, that it reaches), itself among them.
  const reached = (start, here, there) => {
    const found = new Set([start]);
    for (const node of found) {
      lines.filter((line) => line.dataset[here] === node).forEach((line) => found.add(line.dataset[there]));
    }
    return found;
  };
  const counted = (nodes, own) => {
    const kinds = { raw: 0, model: 0, table: 0 };
    nodes.forEach((node) => {
      if (node !== own) kinds[names[Number(node)].dataset.kind] += 1;
    });
    const parts = [["raw", "raw table"], ["model", "model"], ["table", "table"]]
      .filter(([kind]) => kinds[kind])
      .map(([kind, noun]) => `${kinds[kind]} ${noun}${kinds[kind] === 1 ? "" : "s"}`);
    return parts.length > 1 ? `${parts.slice(0, -1).join(", ")} and ${parts[parts.length - 1]}` : parts[0] || "nothing";
  };

  const follow = () => {
    const own = select.value;
    section.toggleAttribute("data-followed", own !== "");
    const before = own === "" ? new Set() : reached(own, "to", "from");
    const after = own === "" ? new Set() : reached(own, "from", "to");
    names.forEach((name) => {
      const node = name.dataset.node;
      name.classList.toggle("own", node === own);
      name.classList.toggle("on", before.has(node) || after.has(node));
    });
    lines.forEach((line) => {
      const { from, to } = line.dataset;
      line.classList.toggle("before", before.has(from) && before.has(to));
      line.classList.toggle("after", after.has(from) && after.has(to));
    });
    words.textContent = own === "" ? "" : `Made from ${counted(before, own)}; ${counted(after, own)} made from it.`;
  };

  select.addEventListener("input", follow);
  section.querySelector("svg").addEventListener("click", (event) => {
    const name = event.target.closest("text[data-node]");
    if (!name) return;
    select.value = name.dataset.node;
    follow();
  });
  follow();
})();
