// Charts were drawn by matplotlib. Here: hide a series by its legend, and show the values under the pointer.

const SVG = "http://www.w3.org/2000/svg";

/** An element with a class, texts (always as text, never as HTML) or elements in it. */
function make(tag, name, ...inside) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...inside.filter((part) => part !== null && part !== undefined));
  return element;
}

function number(value) {
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return Math.abs(value) >= 1000 ? value.toLocaleString("en", { maximumFractionDigits: 0 }) : String(+value.toPrecision(4));
}

function setUpTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  document.getElementById("theme").addEventListener("click", () => {
    const now = document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
    document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
  });
}

function setUpCharts(charts) {
  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    const chart = charts[figure.dataset.chart];
    for (const button of figure.querySelectorAll(".legend button")) {
      button.addEventListener("click", () => {
        const shown = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", String(shown));
        const name = button.dataset.series;
        for (const part of figure.querySelectorAll(`[id="${name}"], [id="${name}-raw"]`)) part.classList.toggle("faded", !shown);
      });
    }
    if (chart) followPointer(figure, chart);
  }
}

function followPointer(figure, chart) {
  const svg = figure.querySelector("svg"), box = figure.querySelector(".pointer");
  const [left, top, right, bottom] = chart.frame, [lowest, highest] = chart.limits;
  const scale = chart.log_x ? Math.log2 : (x) => x;
  const place = (x) => left + ((scale(x) - scale(lowest)) / (scale(highest) - scale(lowest))) * (right - left);
  const all = [...new Set(chart.series.flatMap((series) => series.x))].sort((a, b) => a - b);
  const line = document.createElementNS(SVG, "line");
  line.setAttribute("class", "cursor");
  line.setAttribute("y1", top);
  line.setAttribute("y2", bottom);
  const hide = () => { box.hidden = true; line.remove(); };
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("pointermove", (event) => {
    const bounds = svg.getBoundingClientRect();
    const units = svg.viewBox.baseVal.width / bounds.width;
    const at = (event.clientX - bounds.left) * units;
    let x = all[0];
    for (const candidate of all) if (Math.abs(place(candidate) - at) < Math.abs(place(x) - at)) x = candidate;
    const buttons = figure.querySelectorAll(".legend button");
    const rows = [];
    chart.series.forEach((series, index) => {
      const found = series.x.indexOf(x);
      if (found < 0 || (buttons[index] && buttons[index].getAttribute("aria-pressed") === "false")) return;
      const mark = make("i");
      mark.style.background = series.colour;
      const mean = series.smooth && series.smooth[found] !== series.y[found] ? ` (mean ${number(series.smooth[found])})` : "";
      rows.push(make("div", "", mark, series.label, make("b", "", number(series.y[found]) + mean)));
    });
    if (!rows.length) return hide();
    const title = chart.names.length ? chart.names[x] : `${chart.x_label} ${number(x)}`;
    box.replaceChildren(make("div", "", title), ...rows);
    box.hidden = false;
    const pixel = place(x) / units;
    box.style.left = pixel > bounds.width / 2 ? "auto" : `${pixel + 10}px`;
    box.style.right = pixel > bounds.width / 2 ? `${bounds.width - pixel + 10}px` : "auto";
    line.setAttribute("x1", place(x));
    line.setAttribute("x2", place(x));
    svg.append(line);
  });
}
