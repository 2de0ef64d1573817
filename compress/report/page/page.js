// The report's plots and budgets. Python worked out every place, word and comparison; this moves
// what the page already shows. No library, no request; text enters the page as text only.
"use strict";

(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const pages = JSON.parse(document.getElementById("data").textContent);

  const make = (name, attributes, words) => {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (words !== undefined) node.textContent = words;
    return node;
  };
  const element = (name, words, className) => {
    const node = document.createElement(name);
    node.textContent = words;
    if (className) node.className = className;
    return node;
  };
  const least = (list, cost) => list.reduce((a, b) => (cost(b) < cost(a) ? b : a));

  // --- The recommendation for a budget: Python has worked out all of them ---

  function answerFor(choice, stops) {
    const all = choice.rows.map((_, i) => i);
    const misses = (i, k) => stops[k][2] !== null && stops[k][2][i] !== null;
    const missed = all.map((i) => choice.sliders.map((_, k) => k).filter((k) => misses(i, k)));
    const digits = missed.map((found) => (found.length ? "0" : "1")).join("");
    const dropAsked = choice.drop !== null && stops[choice.drop][2] !== null;
    const asked = dropAsked ? "d" : stops.some((stop) => stop[2] !== null) ? "l" : "";
    const met = digits.includes("1");
    const penalty = (i) => missed[i].reduce((sum, k) => sum + stops[k][2][i], 0);
    const [chosen, why] = met ? choice.answers[digits + asked] : [least(all, penalty), null];
    const missOf = ({ texts, known }, i, limit) => (known[i] ? texts[i] + limit : texts[i]);
    return {
      row: choice.rows[chosen],
      chosen,
      meetsBudget: met,
      reasons: choice.before[chosen] + (met ? choice.reasons[why] : choice.nearest) +
        choice.after[dropAsked ? 1 : 0][chosen],
      missed: missed[chosen].map((k) => missOf(choice.sliders[k], chosen, stops[k][0])),
      outside: choice.rows.filter((_, i) => missed[i].length),
    };
  }

  // --- Drawing ---

  function frameOf(plot) {
    const width = Math.max(280, Math.round(plot.box.clientWidth));
    const height = Math.round(Math.min(460, Math.max(330, width * 0.58)));
    const { left, top, right, bottom } = plot.data.margins;
    const narrow = width < 520 ? 8 : 0;
    const frame = { width, height, left: left - narrow, top,
      right: width - right + narrow, bottom: height - bottom };
    frame.across = (at) => frame.left + at * (frame.right - frame.left);
    frame.down = (at) => frame.top + at * (frame.bottom - frame.top);
    return frame;
  }

  function drawGrid(plot, frame) {
    const { left, right, top, bottom, across, down } = frame;
    const x = plot.data.axes[plot.x], y = plot.data.axes[plot.y];
    const parts = [make("path", { class: "frame", d: `M${left},${top}V${bottom}H${right}` })];
    const put = (className, atX, atY, words) =>
      parts.push(make("text", { class: className, x: atX, y: atY }, words));
    let free = -Infinity;
    for (const [at, words] of [...x.ticks].sort((a, b) => a[0] - b[0])) {
      const half = words.length * 3.4;
      parts.push(make("path", { class: "tick", d: `M${across(at)},${bottom}v5` }));
      if (across(at) - half < free || across(at) + half > frame.width) continue;
      put("middle", across(at), bottom + 19, words);
      free = across(at) + half + 8;
    }
    for (const [at, words] of y.ticks) {
      parts.push(make("path", { class: "line", d: `M${left},${down(at)}H${right}` }));
      put("end", left - 8, down(at) + 4, words);
    }
    for (const [at, words] of x.ratios) {
      parts.push(make("path", { class: "ratio", d: `M${across(at)},${top}V${bottom}` }));
      put("middle", across(at), top - 6, words);
    }
    for (const [at, words] of y.ratios) {
      parts.push(make("path", { class: "ratio", d: `M${left},${down(at)}H${right}` }));
      put("end", right - 4, down(at) - 4, words);
    }
    put("middle title", (left + right) / 2, frame.height - 8, `← ${x.cue} · ${x.title}`);
    put("start title", 6, 15, `↑ ${y.cue} · ${y.title}`);
    plot.svg.querySelector(".grid").replaceChildren(...parts);
  }

  function drawStepLine(plot, frame, shown) {
    plot.corners = plot.data.corners[plot.x][plot.y]
      .map((k) => shown.find((spot) => spot.k === k)).map(({ px, py }) => [px, py]);
    const path = plot.corners.map(([x, y], k) => `${k ? "" : `M${x},${frame.bottom}`}H${x}V${y}`)
      .join("") + (plot.corners.length ? `H${frame.right}` : "");
    plot.svg.querySelector(".step-line").setAttribute("d", path);
    plot.svg.querySelector(".shade").setAttribute("d", path && `${path}V${frame.bottom}Z`);
  }

  // How far the budget goes on the axes that are shown: the sliders', or else the figure's own.
  function limitsOf(plot) {
    const limits = {};
    const put = (axis, at) => {
      if (at !== null && (axis === plot.x || axis === plot.y)) limits[axis] = at;
    };
    if (plot.stops) {
      plot.stops.forEach((stop, k) => put(plot.data.choice.sliders[k].objective, stop[1]));
    } else {
      for (const name of [plot.x, plot.y]) put(name, plot.data.axes[name].limit);
    }
    return limits;
  }

  function drawLimits(plot, frame) {
    const parts = [];
    plot.limits = limitsOf(plot);
    for (const [axis, at] of Object.entries(plot.limits)) {
      const { left, right, top, bottom } = frame;
      const upright = axis === plot.x;
      const place = upright ? frame.across(at) : frame.down(at);
      const box = upright ? { x: place, y: top, width: right - place, height: bottom - top }
        : { x: left, y: place, width: right - left, height: bottom - place };
      parts.push(make("rect", { class: "outside", ...box }));
      const line = upright ? `M${place},${top}V${bottom}` : `M${left},${place}H${right}`;
      parts.push(make("path", { class: "limit", d: line }));
    }
    plot.svg.querySelector(".limits").replaceChildren(...parts);
  }

  const meet = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];

  // Thin boxes around bars and steps, which labels would rather not cover.
  function linesOf(plot, shown, frame) {
    const lines = shown.flatMap(({ px, py, x, y }) => [
      [frame.across(x[1]), py - 1, frame.across(x[2]), py + 1],
      [px - 1, frame.down(y[1]), px + 1, frame.down(y[2])]]);
    let from = null;
    for (const [x, y] of plot.corners) {
      if (from) lines.push([from[0], from[1] - 1, x, from[1] + 1], [x - 1, y, x + 1, from[1]]);
      from = [x, y];
    }
    if (from) lines.push([from[0], from[1] - 1, frame.right, from[1] + 1]);
    const { [plot.x]: x, [plot.y]: y } = plot.limits;
    if (x !== undefined) {
      lines.push([frame.across(x) - 1, frame.top, frame.across(x) + 1, frame.bottom]);
    }
    if (y !== undefined) lines.push([frame.left, frame.down(y) - 1, frame.right, frame.down(y) + 1]);
    return lines;
  }

  // The places beside a point, nearest first, that lie inside the frame; within the budget, too,
  // for a row that is.
  function placesFor({ px, py, point, x, y }, width, frame, plot) {
    const { [plot.x]: mostX = 1, [plot.y]: mostY = 1 } = plot.limits;
    const keeps = x[0] <= mostX && y[0] <= mostY;
    const right = keeps && mostX < 1 ? frame.across(mostX) - 2 : frame.width - 2;
    const bottom = keeps && mostY < 1 ? frame.down(mostY) - 2 : frame.bottom;
    const sides = [[1, 0], [0, -1], [0, 1], [-1, 0], [1, -1], [1, 1], [-1, -1], [-1, 1]];
    return [7, 16, 26, 36, 48, 62].flatMap((more) => sides.map(([dx, dy]) => {
      const gap = point.radius + more;
      const left = px + dx * gap - (dx > 0 ? 0 : dx < 0 ? width : width / 2);
      const top = py + dy * gap - 7;
      return [left, top, left + width, top + 14];
    })).filter((box) => box[0] > frame.left && box[2] < right &&
      box[1] > frame.top && box[3] < bottom);
  }

  // Where the line from a point to its label ends, from the point; none where they touch.
  function leaderOf({ px, py, point }, box) {
    const x = Math.min(Math.max(px, box[0]), box[2]) - px;
    const y = Math.min(Math.max(py, box[1]), box[3]) - py;
    return Math.hypot(x, y) < point.radius + 12 ? null : [x, y];
  }

  // Whether the line from a point to its label passes through none of the boxes.
  function isClear(spot, box, others) {
    const end = leaderOf(spot, box);
    if (!end) return true;
    const { px, py } = spot;
    return [0.2, 0.35, 0.5, 0.65, 0.8, 0.95].every((part) => {
      const x = px + part * end[0], y = py + part * end[1];
      return !others.some((other) => meet([x - 1, y - 1, x + 1, y + 1], other));
    });
  }

  function drawLeader(spot, box) {
    const end = leaderOf(spot, box);
    if (!end) return;
    const line = make("path", { class: "leader", d: `M0,0L${end[0]},${end[1]}` });
    spot.row.insertBefore(line, spot.row.querySelector(".ring"));
  }

  // Labels take the first free place beside their point; those that find none wait for the pointer.
  function placeLabels(plot, shown, frame) {
    const lines = linesOf(plot, shown, frame);
    const taken = shown.map((spot) => {
      const { px, py } = spot, reach = spot.point.radius + 2;
      return spot.marker = [px - reach, py - reach, px + reach, py + reach];
    });
    const order = [...shown].sort((a, b) =>
      b.row.classList.contains("ship") - a.row.classList.contains("ship") ||
      b.point.front - a.point.front);
    for (const spot of order) {
      const { row, point, px, py, y } = spot;
      const name = row.querySelector(".name");
      name.textContent = y.length > 3 ? `${point.label} ↓ ${y[3]}` : point.label;
      const width = name.getComputedTextLength();
      const others = taken.filter((box) => box !== spot.marker);
      const free = placesFor(spot, width, frame, plot)
        .filter((box) => !taken.some((other) => meet(box, other)) && isClear(spot, box, others));
      const chosen = free.find((box) => !lines.some((line) => meet(box, line))) || free[0];
      row.classList.toggle("crowded", !chosen);
      const box = chosen || [px + point.radius + 6, py - 7];
      name.setAttribute("x", box[0] - px);
      name.setAttribute("y", box[1] + 11 - py);
      if (!chosen) continue;
      drawLeader(spot, chosen);
      taken.push([chosen[0] - 5, chosen[1], chosen[2] + 5, chosen[3]]);
    }
  }

  function drawRows(plot, frame) {
    const shown = [];
    plot.rows.forEach((row, k) => {
      const point = plot.data.points[k];
      const x = point.at[plot.x], y = point.at[plot.y];
      row.classList.toggle("absent", !x || !y);
      if (!x || !y) return;
      const px = frame.across(x[0]), py = frame.down(y[0]);
      row.setAttribute("transform", `translate(${px},${py})`);
      row.querySelector(".bars").setAttribute("d",
        `M${frame.across(x[1]) - px},0H${frame.across(x[2]) - px}` +
        `M0,${frame.down(y[1]) - py}V${frame.down(y[2]) - py}`);
      const leader = row.querySelector(".leader");
      if (leader) leader.remove();
      shown.push({ k, row, point, px, py, x, y });
    });
    return shown;
  }

  function draw(plot) {
    const frame = frameOf(plot);
    plot.svg.setAttribute("viewBox", `0 0 ${frame.width} ${frame.height}`);
    drawGrid(plot, frame);
    const shown = drawRows(plot, frame);
    drawStepLine(plot, frame, shown);
    drawLimits(plot, frame);
    placeLabels(plot, shown, frame);
    const absent = plot.data.points.filter((point) => !point.at[plot.x] || !point.at[plot.y]);
    plot.absent.textContent = absent.length
      ? `Not measured on these axes: ${absent.map((point) => point.label).join(", ")}.` : "";
    for (const [name, select] of Object.entries(plot.selects)) {
      const relative = plot.data.axes[plot[name]].relative;
      select.title = relative ? `Dotted lines: ${relative}` : "";
    }
  }

  // --- What a reader does ---

  function showTip(plot, row) {
    const point = plot.data.points[Number(row.dataset.point)];
    const facts = document.createElement("dl");
    for (const [name, words] of point.facts) {
      const pair = document.createElement("div");
      pair.append(element("dt", name), element("dd", words));
      facts.append(pair);
    }
    plot.tip.replaceChildren(element("p", `Row ${point.label}`), facts);
    plot.tip.hidden = false;
    const box = plot.box.getBoundingClientRect();
    const mark = row.querySelector(".mark").getBoundingClientRect();
    const tip = plot.tip.getBoundingClientRect();
    const middle = mark.left + mark.width / 2 - box.left;
    const left = Math.max(0, Math.min(middle - tip.width / 2, box.width - tip.width));
    const below = mark.bottom - box.top + 10;
    const fits = below + tip.height <= box.height || mark.top - box.top < tip.height + 10;
    plot.tip.style.left = `${left}px`;
    plot.tip.style.top = `${fits ? below : mark.top - box.top - tip.height - 10}px`;
  }

  function watchRows(plot) {
    const hide = () => { plot.tip.hidden = true; };
    for (const row of plot.rows) {
      row.addEventListener("pointerenter", () => showTip(plot, row));
      row.addEventListener("pointerleave", hide);
      row.addEventListener("focus", () => showTip(plot, row));
      row.addEventListener("blur", hide);
    }
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  }

  function watchAxes(plot, form) {
    for (const name of ["x", "y"]) {
      const select = plot.selects[name] = form.querySelector(`[data-axis="${name}"]`);
      for (const [key, axis] of Object.entries(plot.data.axes)) {
        const option = element("option", axis.title);
        option.value = key;
        select.append(option);
      }
      select.value = plot[name];
      select.addEventListener("change", () => {
        const other = name === "x" ? "y" : "x";
        if (select.value === plot[other]) {
          plot[other] = plot[name];
          plot.selects[other].value = plot[other];
        }
        plot[name] = select.value;
        draw(plot);
      });
    }
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
  }

  function showRecommendation(plot, answer) {
    const box = plot.section.querySelector(".recommendation");
    box.classList.toggle("met", answer.meetsBudget);
    box.classList.toggle("missed", !answer.meetsBudget);
    box.dataset.row = answer.row;
    box.querySelector(".verdict").textContent = answer.reasons;
    const missed = box.querySelector(".misses");
    missed.replaceChildren(...answer.missed.map((words) => element("li", words)));
    missed.hidden = !answer.missed.length;
    const tiles = plot.data.choice.tiles[answer.chosen].map(([label, value, note]) => {
      const tile = document.createElement("div"), shown = element("dd", value);
      shown.append(element("small", note));
      tile.append(element("dt", label), shown);
      return tile;
    });
    box.querySelector(".tiles").replaceChildren(...tiles);
    plot.rows.forEach((row, k) => {
      const index = plot.data.points[k].row;
      row.classList.toggle("ship", index === answer.row);
      row.classList.toggle("out", answer.outside.includes(index));
    });
    for (const line of plot.section.querySelectorAll("tr[data-row]")) {
      const isShip = Number(line.dataset.row) === answer.row, head = line.firstElementChild;
      line.classList.toggle("ship", isShip);
      head.textContent = head.textContent.replace(">", "") + (isShip ? ">" : "");
    }
  }

  function watchBudget(plot, form) {
    const inputs = [...form.querySelectorAll("input")];
    const sliders = plot.data.choice.sliders;
    const read = () => {
      plot.stops = inputs.map((input, k) => sliders[k].stops[Number(input.value)]);
      inputs.forEach((input, k) => {
        const words = plot.stops[k][0];
        input.setAttribute("aria-valuetext", words);
        input.nextElementSibling.textContent = words;
      });
      showRecommendation(plot, answerFor(plot.data.choice, plot.stops));
      draw(plot);
    };
    form.addEventListener("input", read);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(read));
    form.hidden = false;
    read();
  }

  document.documentElement.classList.add("scripted");
  for (const section of document.querySelectorAll("[data-plot]")) {
    const data = pages[Number(section.dataset.plot)];
    const svg = section.querySelector("svg.pareto");
    if (!data || !svg) continue;
    const plot = { data, section, svg, box: section.querySelector(".plot"), selects: {},
      x: data.shown[0], y: data.shown[1], stops: null, limits: {},
      tip: section.querySelector(".tip"), absent: section.querySelector(".absentees"),
      rows: [...svg.querySelectorAll(".row")] };
    watchAxes(plot, section.querySelector("form.axes"));
    watchRows(plot);
    const budget = section.querySelector("form.budget");
    if (budget) watchBudget(plot, budget);
    else draw(plot);
    let width = plot.box.clientWidth;
    new ResizeObserver(() => {
      if (plot.box.clientWidth !== width) {
        width = plot.box.clientWidth;
        draw(plot);
      }
    }).observe(plot.box);
  }
})();
