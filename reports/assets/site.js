// Draws the charts of a page and makes its switches, filters and searches work. No network, no eval.
(() => {
  "use strict";

  const parsed = (id) => {
    const element = document.getElementById(id);
    return element ? JSON.parse(element.textContent) : null;
  };
  const axes = parsed("x-axes");
  const axisSwitch = document.querySelector("[data-axis-switch]");
  const drawn = new Map(); // chart element -> { view, finalize, columns, width }

  // The theme that the reader chose, else the system's. Storage may be refused to pages from files.
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const themeSwitch = document.getElementById("theme");
  const stored = (value) => {
    try {
      if (value !== undefined) localStorage.setItem("timecourse-theme", value);
      return localStorage.getItem("timecourse-theme") || "";
    } catch {
      return value || "";
    }
  };
  const setTheme = (value) => {
    if (value) root.dataset.theme = value;
    else delete root.dataset.theme;
    themeSwitch.value = value;
  };
  setTheme(stored());
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";

  // Colours of the specification, and nothing of its data, as they are on a dark page.
  const dark = parsed("dark-colours");
  const darken = (node) => {
    Object.keys(node).filter((key) => key !== "datasets" && key !== "data").forEach((key) => {
      const value = node[key];
      if (typeof value === "string") node[key] = dark[value] || value;
      else if (value && typeof value === "object") darken(value);
    });
  };

  // Every x encoding over training has a field x_<mode> (the other end of an interval: from_x_<mode>).
  const setAxis = (node, mode) => {
    if (!node || typeof node !== "object") return;
    const field = node.x && node.x.field;
    if (typeof field === "string" && field.startsWith("x_")) node.x = { ...axes[mode].encoding };
    const other = node.x2 && node.x2.field;
    if (typeof other === "string" && other.startsWith("from_x_")) node.x2 = { ...node.x2, field: "from_x_" + mode };
    Object.keys(node).filter((key) => key !== "datasets" && key !== "data").forEach((key) => setAxis(node[key], mode));
  };

  // Small multiples: as many columns as fit, and never a panel wider than the page.
  const fitColumns = (spec, width) => {
    const axis = 60;
    const gap = 20;
    spec.columns = Math.max(1, Math.floor((width - axis) / (spec.spec.width + gap)));
    spec.spec.width = Math.floor((width - axis) / spec.columns) - gap;
    return spec.columns;
  };

  const draw = async (element) => {
    const spec = parsed(element.dataset.chart);
    if (axes && axisSwitch) setAxis(spec, axisSwitch.value);
    if (isDark()) darken(spec);
    const columns = spec.facet && spec.columns ? fitColumns(spec, element.clientWidth) : 0;
    const before = drawn.get(element);
    if (before) before.finalize();
    const result = await window.vegaEmbed(element, spec, {
      mode: "vega-lite",
      ast: true, // expressions are interpreted: the content security policy allows no eval
      actions: false,
      renderer: "svg",
      defaultStyle: false,
      tooltip: { disableDefaultStyle: true },
    });
    drawn.set(element, { view: result.view, finalize: () => result.finalize(), columns, width: element.clientWidth });
    // Marks without a description of their own are no pictures, and what scrolls can be reached by keyboard.
    element.querySelectorAll("[role^=graphics-]:not([aria-label])").forEach((mark) => mark.removeAttribute("role"));
    if (element.scrollWidth > element.clientWidth) element.tabIndex = 0;
    else element.removeAttribute("tabindex");
    element.dataset.state = "drawn";
  };

  const charts = [...document.querySelectorAll("[data-chart]")];
  const drawAll = async () => {
    for (const element of charts) await draw(element).catch((error) => console.error(String(error)));
    root.dataset.drawn = isDark() ? "dark" : "light";
    root.dataset.charts = "drawn";
  };
  const drawAgain = () => {
    delete root.dataset.charts;
    return drawAll();
  };
  if (window.vegaEmbed) {
    drawAll();
    if (axisSwitch) {
      axisSwitch.addEventListener("input", drawAgain);
    }
    let waiting = 0; // charts of one panel follow the width by themselves; small multiples are laid out anew
    window.addEventListener("resize", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        charts.filter((element) => drawn.get(element)?.columns && drawn.get(element).width !== element.clientWidth)
          .forEach((element) => draw(element).catch((error) => console.error(String(error))));
      }, 200);
    });
  }

  const followTheme = () => {
    if (window.vegaEmbed && charts.length) drawAgain();
  };
  system.addEventListener("change", followTheme);
  themeSwitch.addEventListener("input", () => {
    setTheme(stored(themeSwitch.value));
    followTheme();
  });

  document.querySelectorAll("button[data-save]").forEach((button) => {
    button.addEventListener("click", async () => {
      const view = drawn.get(document.querySelector(`[data-chart="${CSS.escape(button.dataset.of)}"]`))?.view;
      if (!view) return;
      const kind = button.dataset.save;
      const link = document.createElement("a");
      link.download = `${button.dataset.of.replace(/-chart$/, "")}.${kind}`;
      link.href = kind === "png"
        ? await view.toImageURL("png", 2)
        : URL.createObjectURL(new Blob([await view.toSVG()], { type: "image/svg+xml" }));
      link.click();
    });
  });

  document.querySelectorAll("table[data-filter-control]").forEach((table) => {
    const control = document.getElementById(table.dataset.filterControl);
    const apply = () => table.querySelectorAll("tbody tr").forEach((row) => {
      row.hidden = row.dataset.filter !== control.value;
    });
    control.addEventListener("input", apply);
    apply();
  });

  document.querySelectorAll("input[data-search]").forEach((input) => {
    const rows = [...document.querySelectorAll(`#${CSS.escape(input.dataset.search)} tbody tr`)];
    const output = document.querySelector(`[data-search-count="${CSS.escape(input.dataset.search)}"]`);
    const texts = rows.map((row) => row.textContent.toLowerCase());
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let found = 0;
      rows.forEach((row, index) => {
        row.hidden = !words.every((word) => texts[index].includes(word));
        found += row.hidden ? 0 : 1;
      });
      output.textContent = words.length ? `${found} of ${rows.length} ${rows.length === 1 ? "row" : "rows"}` : "";
    });
  });

  document.querySelectorAll("[role=region].scroll").forEach((region) => {
    if (region.scrollWidth <= region.clientWidth && region.scrollHeight <= region.clientHeight && region.clientHeight) {
      region.removeAttribute("tabindex");
    }
  });
})();
