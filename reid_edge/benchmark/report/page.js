"use strict";
(function () {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const select = document.getElementById("query");
  const hidden = new Set();
  const TONES = 12;

  const tone = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

  // A rim in the card's colour keeps filled symbols apart that lie on one another; hollow ones are drawn by their rim.
  function rims(symbols, colour) {
    const rim = (symbol) => (String(symbol).endsWith("-open") ? colour : tone("card"));
    return Array.isArray(symbols) ? symbols.map(rim) : rim(symbols);
  }

  function coloured(trace) {
    const colour = trace.meta.tone === "ink" ? tone("soft") : tone("t" + (trace.meta.tone % TONES));
    const marker = trace.marker || {};
    return {
      ...trace,
      marker: { opacity: 1, ...marker, color: colour, line: { width: 1.4, ...marker.line, color: rims(marker.symbol, colour) } },
      line: { ...trace.line, color: colour },
      textfont: { color: tone("soft"), size: 12 },
      error_x: trace.error_x && { ...trace.error_x, color: colour },
      error_y: trace.error_y && { ...trace.error_y, color: colour },
      visible: !(trace.meta.variant && hidden.has(trace.meta.variant)),
    };
  }

  function axis(given) {
    return {
      automargin: true, gridcolor: tone("line"), linecolor: tone("line"), zeroline: false, tickfont: { size: 12 },
      ...given, title: { standoff: 8, font: { size: 13 }, ...(given && given.title) },
    };
  }

  function layout(given) {
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 52, r: 14, t: 14, b: 46 },
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
      ...given,
      font: { family: getComputedStyle(document.body).fontFamily, color: tone("ink"), size: 13 },
      hoverlabel: { align: "left", bgcolor: tone("card"), bordercolor: tone("line"), font: { color: tone("ink"), size: 13 } },
      xaxis: axis(given.xaxis), yaxis: axis(given.yaxis),
      annotations: (given.annotations || []).map((one) => ({
        ...one, font: { size: 12.5, color: tone("ink") }, visible: !hidden.has(one.name),
      })),
    };
  }

  function draw(place) {
    const figure = (figures[place.dataset.figure] || {})[select.value];
    place.classList.toggle("empty", !figure);
    if (!figure) {
      Plotly.purge(place);
      place.textContent = place.dataset.empty;
      return;
    }
    if (!place.classList.contains("js-plotly-plot")) place.textContent = "";
    if (figure.layout.height) place.style.height = figure.layout.height + "px";
    Plotly.react(place, figure.data.map(coloured), layout(figure.layout), { responsive: true, displayModeBar: false });
  }

  const shown = (place) => !place.closest("details:not([open])");

  function drawAll() {
    document.querySelectorAll(".plot").forEach((place) => shown(place) && draw(place));
    document.querySelectorAll("[data-query]").forEach((one) => { one.hidden = one.dataset.query !== select.value; });
  }

  function sortable(table) {
    table.querySelectorAll("thead th").forEach((head, column) => {
      const button = document.createElement("button");
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        table.querySelectorAll("th").forEach((one) => one.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const body = table.tBodies[0];
        const text = (row) => row.cells[column].textContent.trim().replace(/^[≈(]/, "").replaceAll(",", "");
        const value = (row) => { const found = parseFloat(text(row)); return isNaN(found) ? -Infinity : found; };
        const numeric = head.classList.contains("number");
        const rows = [...body.rows].sort((a, b) =>
          numeric ? value(a) - value(b) : text(a).localeCompare(text(b), undefined, { numeric: true }));
        body.append(...(up ? rows : rows.reverse()));
      });
    });
  }

  select.addEventListener("change", drawAll);
  document.querySelectorAll("details").forEach((one) =>
    one.addEventListener("toggle", () => one.open && one.querySelectorAll(".plot").forEach(draw)));
  document.querySelectorAll(".legend button").forEach((button) =>
    button.addEventListener("click", () => {
      const variant = button.dataset.variant;
      if (!hidden.delete(variant)) hidden.add(variant);
      button.setAttribute("aria-pressed", String(!hidden.has(variant)));
      drawAll();
    }));
  document.querySelectorAll("table.runs").forEach(sortable);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  drawAll();
})();
