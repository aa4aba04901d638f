// The layer × head map: the slider picks the checkpoint, a click (or Enter) shows one component's history and examples.
(() => {
  "use strict";

  const data = JSON.parse(document.getElementById("component-data").textContent);
  const slider = document.getElementById("map-checkpoint");
  const checkpointName = document.getElementById("map-checkpoint-name");
  const detail = document.getElementById("component-detail");
  const cells = [...document.querySelectorAll("td[data-component]")];
  const last = data.checkpoints.length - 1;
  let selected = null;

  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const roleAt = (component, checkpoint) => data.roles["gerfi".indexOf(component.roles[checkpoint])];
  const letter = (role) => (role === "inactive" ? "·" : data.labels[role][0]);
  const share = (thousandths) => (thousandths === null ? "n/a" : (thousandths / 1000).toFixed(3));

  const paint = () => {
    const checkpoint = Number(slider.value);
    checkpointName.textContent = data.checkpoints[checkpoint];
    slider.setAttribute("aria-valuetext", data.checkpoints[checkpoint]);
    const counts = Object.fromEntries(data.roles.map((role) => [role, { head: 0, FFN: 0 }]));
    cells.forEach((cell) => {
      const component = data.components[cell.dataset.component];
      const role = roleAt(component, checkpoint);
      counts[role][component.name.endsWith("F") ? "FFN" : "head"] += 1;
      cell.className = `cell role-${role}`;
      cell.textContent = letter(role);
      cell.setAttribute("aria-label", `${component.name}: ${data.labels[role]}`);
      cell.title = `${component.name}: ${data.labels[role]}`;
      cell.setAttribute("aria-selected", String(component === selected));
    });
    Object.entries(counts).forEach(([role, count]) => {
      const words = Object.entries(count).map(([kind, number]) => `${number} ${kind}${number === 1 ? "" : "s"}`);
      document.querySelector(`[data-role-count="${role}"]`).textContent = `(${words.join(", ")})`;
    });
    if (selected) describe();
  };

  const strip = (checkpoint) => {
    const list = make("ol", "strip");
    data.checkpoints.forEach((name, index) => {
      const role = roleAt(selected, index);
      const item = make("li", index === checkpoint ? "now" : "");
      const button = make("button", `cell role-${role}`, letter(role));
      button.type = "button";
      button.title = `${name}: ${data.labels[role]}`;
      button.setAttribute("aria-label", button.title);
      button.addEventListener("click", () => {
        slider.value = String(index);
        paint();
        detail.querySelectorAll(".strip button")[index].focus();
      });
      item.append(button);
      list.append(item);
    });
    return list;
  };

  const example = ([before, token, after, relation, subject, object, score]) => {
    const item = make("li");
    const sentence = make("p", "sentence");
    sentence.append(document.createTextNode(before), make("mark", "", token), document.createTextNode(after));
    item.append(sentence, make("p", "note", `${relation}: ${subject} → ${object} · score ${score}`));
    return item;
  };

  const describe = () => {
    const checkpoint = Number(slider.value);
    const role = roleAt(selected, checkpoint);
    const changes = selected.changes[checkpoint];
    const since = data.checkpoints[selected.since[checkpoint]];
    detail.replaceChildren();
    detail.append(make("h3", "", selected.title));
    const status = make("p", "status");
    status.append(
      make("span", `swatch swatch-${role}`),
      document.createTextNode(
        `${data.labels[role]} at ${data.checkpoints[checkpoint]}, without a break since ${since}; ` +
        `${changes} ${changes === 1 ? "change" : "changes"} of primary role up to here.`));
    detail.append(status, make("h4", "", `History, ${data.checkpoints[0]} to ${data.checkpoints[last]}`), strip(checkpoint));
    if (selected.rates) {
      const [all, entity, relation, relationName] = selected.rates[checkpoint];
      const list = make("dl", "rates");
      [["all tokens", share(all)], ["entity tokens", share(entity)],
        ["answers of one relation, highest", share(relation) + (relationName === null ? "" : ` (${data.relations[relationName]})`)],
      ].forEach(([term, text]) => list.append(make("dt", "", term), make("dd", "", text)));
      detail.append(make("h4", "", `Activity rate at ${data.checkpoints[checkpoint]} (threshold θ = ${data.theta})`), list);
    }
    detail.append(make("h4", "", `Most active on (at ${data.reference}, the reference)`));
    if (selected.examples.length) {
      const list = make("ol", "examples");
      selected.examples.forEach((row) => list.append(example(row)));
      detail.append(list);
    } else {
      detail.append(make("p", "note", data.examplesPerComponent ? "No examples: not active in any prompt there." :
        "Examples are in the CSV file only: too many for this page."));
    }
  };

  const select = (cell) => {
    selected = data.components[cell.dataset.component];
    cells.forEach((other) => { other.tabIndex = other === cell ? 0 : -1; });
    paint();
  };

  cells.forEach((cell, index) => {
    cell.setAttribute("role", "gridcell");
    cell.tabIndex = index === 0 ? 0 : -1;
    cell.addEventListener("click", () => { select(cell); cell.focus(); });
    cell.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        select(cell);
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
  paint();
})();
