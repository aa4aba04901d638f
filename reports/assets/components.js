// The layer × head map: the slider picks the checkpoint; a click, Enter or the search shows one component in detail.
// Both stand in the page's address (#component=L3H5&checkpoint=main), so that a link leads back to them.
(() => {
  "use strict";

  const data = JSON.parse(document.getElementById("component-data").textContent);
  const slider = document.getElementById("map-checkpoint");
  const checkpointName = document.getElementById("map-checkpoint-name");
  const search = document.getElementById("component-search");
  const message = document.getElementById("component-message");
  const detail = document.getElementById("component-detail");
  const cells = [...document.querySelectorAll("td[data-component]")];
  const cellOf = new Map(cells.map((cell) => [data.components[cell.dataset.component].name.toLowerCase(), cell]));
  const last = data.checkpoints.length - 1;
  let selected = null;

  const ROBUSTNESS = {
    c: "core: the same role whatever θ and τ of the grid",
    t: "contingent: another role at some θ or τ of the grid, or not sure enough",
    n: "noise: in fewer than half of the draws of the facts",
  };
  const HOLDS = 1;
  const IS_SPECIFIC = 2;

  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const roleAt = (component, checkpoint) => data.roles["gerfi".indexOf(component.roles[checkpoint])];
  const isNoise = (component, checkpoint) => component.robustness[checkpoint] === "n";
  const letter = (role) => (role === "inactive" ? "·" : data.labels[role][0]);
  const share = (thousandths) => (thousandths === null ? "n/a" : (thousandths / 1000).toFixed(3));
  const percent = (thousandths) => `${(thousandths / 10).toFixed(1)}\u00a0%`;
  const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
  const listed = (parts) => (parts.length < 2 ? parts.join("") : `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}`);
  const paintCell = (cell, component, checkpoint) => {
    const role = roleAt(component, checkpoint);
    cell.className = `cell role-${role}${isNoise(component, checkpoint) ? " noise" : ""}`;
    cell.textContent = letter(role);
    return `${data.labels[role]}${isNoise(component, checkpoint) ? ", noise" : ""}`;
  };

  const paint = () => {
    const checkpoint = Number(slider.value);
    checkpointName.textContent = data.checkpoints[checkpoint];
    slider.setAttribute("aria-valuetext", data.checkpoints[checkpoint]);
    const counts = Object.fromEntries([...data.roles, "noise"].map((role) => [role, { head: 0, FFN: 0 }]));
    cells.forEach((cell) => {
      const component = data.components[cell.dataset.component];
      const kind = component.name.endsWith("F") ? "FFN" : "head";
      cell.title = `${component.name}: ${paintCell(cell, component, checkpoint)}`;
      cell.setAttribute("aria-label", cell.title);
      cell.setAttribute("aria-selected", String(component === selected));
      counts[roleAt(component, checkpoint)][kind] += 1;
      if (isNoise(component, checkpoint)) counts.noise[kind] += 1;
    });
    Object.entries(counts).forEach(([role, count]) => {
      const words = Object.entries(count).map(([kind, number]) => counted(number, kind));
      document.querySelector(`[data-role-count="${role}"]`).textContent = `(${words.join(", ")})`;
    });
    if (selected) describe();
  };

  const strip = (checkpoint) => {
    const list = make("ol", "strip");
    data.checkpoints.forEach((name, index) => {
      const item = make("li", index === checkpoint ? "now" : "");
      const button = make("button");
      button.type = "button";
      button.title = `${name}: ${paintCell(button, selected, index)}`;
      button.setAttribute("aria-label", button.title);
      button.addEventListener("click", () => {
        slider.value = String(index);
        paint();
        remember();
        detail.querySelectorAll(".strip button")[index].focus();
      });
      item.append(button);
      list.append(item);
    });
    return list;
  };

  const example = ([number, start, end, score]) => {
    const [text, relation, subject, object] = data.prompts[number];
    const characters = [...text]; // positions count characters, not halves of them
    const part = (from, to) => characters.slice(from, to).join("");
    const item = make("li");
    const sentence = make("p", "sentence");
    sentence.append(part(0, start), make("mark", "", part(start, end)), part(end));
    item.append(sentence, make("p", "note", `${relation}: ${subject} → ${object} · score ${score}`));
    return item;
  };

  const pairs = (rows) => {
    const list = make("dl", "rates");
    rows.forEach(([term, text]) => list.append(make("dt", "", term), make("dd", "", text)));
    return list;
  };

  // A rate with its interval and the threshold θ, from 0 to 1.
  const bar = (rate, low, high) => {
    const track = make("span", "rate-bar");
    track.setAttribute("aria-hidden", "true");
    const part = (name, from, to) => {
      const element = make("span", name);
      element.style.left = `${from / 10}%`;
      element.style.width = `${(to - from) / 10}%`;
      track.append(element);
    };
    part("rate-value", 0, rate);
    if (low !== null) part("rate-interval", low, high);
    part("rate-theta", 1000 * data.theta, 1000 * data.theta);
    return track;
  };

  // Beside the chosen checkpoint only where the page holds its activity; else at the last one that it does.
  const activity = (checkpoint) => {
    const at = data.activityAt.includes(checkpoint) ? data.activityAt.indexOf(checkpoint) : data.activityAt.length - 1;
    const place = `at ${data.checkpoints[data.activityAt[at] ?? last]}`;
    const rows = at < 0 ? [] : selected.activity[at];
    const found = [make("h4", "", `Activity by relation ${place}`)];
    if (!rows.length) {
      found.push(make("p", "note", "Too many for this page: they are in the files of the table below."));
      return found;
    }
    const table = make("table", "relations");
    const head = make("tr");
    ["relation", "0 to 1", "rate (95 %)"].forEach((text) => {
      const cell = make("th", "", text);
      cell.scope = "col";
      head.append(cell);
    });
    const body = make("tbody");
    rows.forEach(([relation, rate, low, high, marks]) => {
      const row = make("tr");
      const name = make("th", "", data.relations[relation]);
      name.scope = "row";
      const words = [];
      if (marks & HOLDS) words.push("relation answer");
      if (marks & IS_SPECIFIC) words.push("specific");
      if (words.length) name.append(make("span", "marks", words.join(", ")));
      const drawing = make("td");
      drawing.append(bar(rate, low, high));
      const interval = low === null ? "n/a" : `${(low / 1000).toFixed(2)}–${(high / 1000).toFixed(2)}`;
      row.append(name, drawing, make("td", "number", `${(rate / 1000).toFixed(2)} (${interval})`));
      body.append(row);
    });
    const header = make("thead");
    header.append(head);
    table.append(header, body);
    found.push(table);
    const [held, tested, specific] = selected.facts[at] || [0, 0, 0];
    const facts = !held ? "" :
      ` Fact answer for ${counted(held, "fact")}: ` +
      (tested ? `specific to ${specific} of ${tested} tested.` : "not tested, which takes 3 templates.");
    found.push(make("p", "note",
      (data.activityAt.length === data.checkpoints.length ? "" : "The page holds it for this checkpoint only. ") +
      `Share of the positions that predict the relation's answers; the upright line is θ = ${data.theta}. ` +
      `Specific: more often than on other relations (q ≤ 0.05).${facts}`));
    return found;
  };

  const describe = () => {
    const checkpoint = Number(slider.value);
    const role = roleAt(selected, checkpoint);
    const since = data.checkpoints[selected.since[checkpoint]];
    const held = parseInt(selected.held[checkpoint], 16);
    const others = data.roles.filter((other, bit) => other !== role && held >> bit & 1).map((other) => data.labels[other]);
    const status = make("p", "status");
    status.append(
      make("span", `swatch swatch-${role}`),
      `${data.labels[role]} at ${data.checkpoints[checkpoint]}, without a break since ${since}; ` +
      `${counted(selected.changes[checkpoint], "change")} of primary role up to here.` +
      (others.length ? ` It holds ${listed(others)} too.` : ""));
    detail.replaceChildren(make("h3", "", selected.title), status);
    const sure = [];
    if (selected.confidence && selected.confidence[checkpoint] !== null) {
      sure.push(["confidence", `${percent(selected.confidence[checkpoint])} of the draws of the facts give this role`]);
    }
    if (ROBUSTNESS[selected.robustness[checkpoint]]) sure.push(["robustness", ROBUSTNESS[selected.robustness[checkpoint]]]);
    if (sure.length) detail.append(make("h4", "", "How sure the role is"), pairs(sure));
    detail.append(make("h4", "", `History, ${data.checkpoints[0]} to ${data.checkpoints[last]}`), strip(checkpoint));
    if (selected.rates) {
      const [all, entity, relation, relationName] = selected.rates[checkpoint];
      detail.append(make("h4", "", `Activity rate at ${data.checkpoints[checkpoint]} (threshold θ = ${data.theta})`), pairs([
        ["all tokens", share(all)], ["entity tokens", share(entity)],
        ["highest relation", share(relation) + (relationName === null ? "" : ` (${data.relations[relationName]})`)],
      ]));
    }
    detail.append(...activity(checkpoint), make("h4", "", `Most active on (at ${data.checkpoints[last]})`));
    if (selected.examples.length) {
      const list = make("ol", "examples");
      selected.examples.forEach((row) => list.append(example(row)));
      detail.append(list);
    } else {
      detail.append(make("p", "note", data.examplesPerComponent ? "No examples: not active in any prompt there." :
        "Examples are in the files of the table below only: too many for this page."));
    }
  };

  const remember = () => {
    const parameters = new URLSearchParams();
    if (selected) parameters.set("component", selected.name);
    parameters.set("checkpoint", data.names[Number(slider.value)]);
    history.replaceState(null, "", `#${parameters}`);
  };

  const select = (cell) => {
    selected = data.components[cell.dataset.component];
    cells.forEach((other) => { other.tabIndex = other === cell ? 0 : -1; });
    message.textContent = `${selected.name} is shown.`;
    paint();
  };

  const unknown = (name) => {
    message.textContent = `There is no component “${name}” here. Names are like ${data.components[0].name}` +
      ` and ${data.components.at(-1).name}: layer and head, or F for the FFN.`;
  };

  const find = () => {
    const name = search.value.replace(/\s/g, "");
    const cell = cellOf.get(name.toLowerCase());
    if (cell) {
      select(cell);
      remember();
    } else if (name) {
      unknown(name);
    }
  };

  const follow = () => {
    const parameters = new URLSearchParams(location.hash.slice(1));
    const component = parameters.get("component");
    const checkpoint = parameters.get("checkpoint");
    if (checkpoint !== null && data.names.includes(checkpoint)) slider.value = String(data.names.indexOf(checkpoint));
    const cell = component === null ? null : cellOf.get(component.toLowerCase());
    if (cell) select(cell);
    else paint();
    if (component !== null && !cell) unknown(component);
    else if (checkpoint !== null && !data.names.includes(checkpoint)) {
      message.textContent = `There is no checkpoint “${checkpoint}” here; ${data.checkpoints[Number(slider.value)]} is shown.`;
    }
  };

  cells.forEach((cell, index) => {
    cell.setAttribute("role", "gridcell");
    cell.tabIndex = index === 0 ? 0 : -1;
    cell.addEventListener("click", () => {
      select(cell);
      remember();
      cell.focus();
    });
    cell.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        select(cell);
        remember();
        return;
      }
      const row = cell.parentElement;
      const column = cell.cellIndex;
      let target = null;
      if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
        const inRow = [...row.querySelectorAll("td[data-component]")];
        target = inRow[inRow.indexOf(cell) + (event.key === "ArrowRight" ? 1 : -1)];
      } else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
        const next = event.key === "ArrowUp" ? row.previousElementSibling : row.nextElementSibling;
        target = next && next.cells[column];
      } else {
        return;
      }
      event.preventDefault();
      if (target && target.dataset.component !== undefined) {
        cell.tabIndex = -1;
        target.tabIndex = 0;
        target.focus();
      }
    });
  });
  slider.addEventListener("input", paint);
  slider.addEventListener("change", remember);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") find();
  });
  document.getElementById("component-show").addEventListener("click", find);
  window.addEventListener("hashchange", follow);
  follow();
})();
