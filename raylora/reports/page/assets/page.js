"use strict";
// Draws the charts of the page, and keeps filter, chosen trial and theme the same in all of them.
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const tables = read("page-data");
  const charts = read("page-charts");
  const trials = new Map((tables.trials || []).map((row) => [row.key, row]));
  const views = new Map();
  const root = document.documentElement;
  let chosen = null;
  root.classList.add("scripted");

  // What a reader set is kept where the page may keep it: a file in a sandboxed frame may not.
  const keep = (name, value) => { try { sessionStorage.setItem(`raylora ${name}`, JSON.stringify(value)); } catch { /* not kept */ } };
  const kept = (name) => { try { return JSON.parse(sessionStorage.getItem(`raylora ${name}`)); } catch { return null; } };

  // ---- style: one for all charts, from the page's own colours

  const variants = [...new Set([...trials.values()].map((row) => row.variant))].sort();
  const LIGHT = ["#1f6f8b", "#d1703c", "#4e8f5b", "#8a5a9e", "#c2a13a", "#b8475c", "#5b7fc4", "#7a6a55", "#2aa198", "#9c9c3f"];
  const DARK = ["#6cb8d1", "#eb9a6b", "#86c795", "#c19ad3", "#e3c76b", "#ea8799", "#93b0ec", "#b5a48b", "#6fd0c8", "#cfcf7c"];
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const style = () => {
    const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
    const [ink, soft, line] = [colour("--ink"), colour("--soft"), colour("--line")];
    const narrow = innerWidth < 700;
    const font = "system-ui, -apple-system, Segoe UI, Roboto, sans-serif";
    return {
      background: "transparent", font, view: { stroke: null },
      axis: { labelColor: soft, titleColor: soft, titleFontWeight: 500, gridColor: line, domainColor: line, tickColor: line, labelFontSize: 11, titleFontSize: 12, titlePadding: 8 },
      axisX: { grid: false, labelSeparation: 6 }, numberFormat: ",~f",
      legend: { labelColor: ink, titleColor: soft, titleFontWeight: 500, orient: narrow ? "bottom" : "right", columns: narrow ? 2 : 1, layout: { bottom: { direction: "vertical", anchor: "start" } }, symbolOpacity: 1, symbolBaseFillColor: soft, symbolBaseStrokeColor: soft },
      mark: { color: dark() ? DARK[0] : LIGHT[0] }, text: { color: soft, fill: soft }, rule: { color: soft }, line: { strokeCap: "round", strokeJoin: "round" },
      range: {
        category: dark() ? DARK : LIGHT, heatmap: dark() ? ["#3a4f5d", "#2f6378", "#4f9bb5", "#a9dcea"] : ["#d3e6e9", "#9fcfd6", "#4795ab", "#1b5b78"], ramp: { scheme: "viridis" },
        ranks: dark() ? ["#ffd27a", "#b8776f", "#6d73a0"] : ["#0b5d4b", "#7fb6a0", "#e6d3b1", "#c77a4e"],
      },
    };
  };

  // A variant has one colour on the whole page, whichever of them a chart shows.
  const dressed = (spec) => {
    const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
    let text = JSON.stringify(spec).replaceAll("@card", colour("--card")).replaceAll("@ink", colour("--ink")).replaceAll("@soft", colour("--soft")).replaceAll("@chosen", colour("--bad"));
    if (innerWidth < 700) text = text.replaceAll('"labelAngle":0', '"labelAngle":-45');
    const copy = JSON.parse(text);
    const named = new Set();
    const visit = (part) => {
      if (part === null || typeof part !== "object") return;
      if (part.data && part.data.name) named.add(part.data.name);
      const colour = part.encoding && part.encoding.color;
      if (colour && colour.field === "variant" && colour.type === "nominal") colour.scale = { ...colour.scale, domain: variants };
      Object.values(part).forEach(visit);
    };
    visit(copy);
    copy.datasets = Object.fromEntries([...named].map((name) => [name, shown(name)]));
    return copy;
  };

  // ---- filter

  const allowed = () => {
    const off = {};
    document.querySelectorAll("#filter input").forEach((box) => {
      if (!box.checked) (off[box.dataset.filter] ||= new Set()).add(box.value);
    });
    return (row) => !Object.entries(off).some(([name, values]) => values.has(row[name]));
  };
  const visible = new Set();
  const recount = () => {
    const fits = allowed();
    visible.clear();
    trials.forEach((row, key) => { if (fits(row)) visible.add(key); });
    document.querySelectorAll("table.trials tbody tr").forEach((row) => { row.hidden = !visible.has(row.dataset.key); });
    const counted = document.getElementById("counted");
    counted.textContent = visible.size === trials.size ? `${trials.size} trials` : `${visible.size} of ${trials.size} trials`;
  };
  const shown = (name) => (tables[name] || []).filter((row) => row.key === undefined || visible.has(row.key));
  const refilter = () => {
    recount();
    views.forEach(({ view, names }) => {
      names.forEach((name) => view.data(name, shown(name).map((row) => ({ ...row }))));
      view.runAsync();
    });
    keep("off", [...document.querySelectorAll("#filter input")].filter((box) => !box.checked).map((box) => [box.dataset.filter, box.value]));
  };

  // ---- chosen trial

  const choose = (key) => {
    chosen = trials.has(key) && key !== chosen ? key : null;
    views.forEach(({ view }) => view.signal("chosen", chosen).runAsync());
    document.querySelectorAll("table.trials tbody tr").forEach((row) => row.classList.toggle("is-chosen", row.dataset.key === chosen));
    const card = document.getElementById("chosen");
    card.hidden = chosen === null;
    keep("chosen", chosen);
    if (chosen === null) return;
    const row = trials.get(chosen);
    card.querySelector("h3").textContent = `Trial ${row.trial} of ${row.run}`;
    const told = { recipe: row.recipe, ended: row.status, value: row.value, "±": row.error, "validation loss": row.loss, place: row.place, seconds: row.seconds, "memory, GB": row.memory_gb, parameters: row.parameters, message: row.message };
    const list = card.querySelector("dl");
    list.replaceChildren();
    Object.entries(told).forEach(([name, value]) => {
      if (value === null || value === undefined || value === "") return;
      const term = document.createElement("dt");
      const what = document.createElement("dd");
      term.textContent = name;
      what.textContent = typeof value === "number" ? value.toLocaleString("en", { maximumSignificantDigits: 5 }) : value;
      list.append(term, what);
    });
  };
  document.querySelector("#chosen button").addEventListener("click", () => choose(null));
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") choose(null); });
  document.querySelectorAll("table.trials tbody tr").forEach((row) => row.addEventListener("click", () => choose(row.dataset.key)));

  // ---- charts

  const draw = async (id) => {
    const place = document.querySelector(`.chart[data-chart="${id}"]`);
    const select = document.querySelector(`.views[data-for="${id}"] select`);
    const all = Object.values(charts[id]);
    const spec = dressed(all[select ? select.selectedIndex : 0]);
    const old = views.get(id);
    if (old) old.finalize();
    const made = await vegaEmbed(place, spec, {
      config: style(), renderer: "svg", logLevel: vega.Error, tooltip: { theme: "custom" },
      actions: { export: true, source: false, compiled: false, editor: false }, downloadFileName: id,
    });
    place.classList.toggle("dark", dark());
    views.set(id, { view: made.view, names: Object.keys(spec.datasets), finalize: made.finalize });
    made.view.signal("chosen", chosen).runAsync();
    made.view.addEventListener("click", (event, item) => {
      const row = item && item.datum && (item.datum.key ? item.datum : item.datum.datum);
      if (row && row.key) choose(row.key);
    });
  };
  const drawAll = async () => { for (const id of Object.keys(charts)) await draw(id); };
  document.querySelectorAll(".views").forEach((place) => {
    const names = Object.keys(charts[place.dataset.for] || {});
    if (names.length < 2) return;
    const select = document.createElement("select");
    select.setAttribute("aria-label", "What the chart shows");
    names.forEach((name) => select.add(new Option(name)));
    const before = names.indexOf(kept(`view ${place.dataset.for}`));
    if (before >= 0) select.selectedIndex = before;
    select.addEventListener("change", () => { keep(`view ${place.dataset.for}`, select.value); draw(place.dataset.for); });
    place.append(select);
  });

  // ---- rows of test

  document.querySelectorAll("table.answers").forEach((table) => {
    const controls = table.parentElement.previousElementSibling;
    const [search, kind, matches] = [".search", ".kind", ".matches"].map((name) => controls.querySelector(name));
    const rows = [...table.tBodies[0].rows];
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const look = () => {
      const wanted = search.value.toLowerCase();
      let count = 0;
      rows.forEach((row, i) => {
        row.hidden = !texts[i].includes(wanted) || (kind.value !== "" && row.dataset.kind !== kind.value);
        count += row.hidden ? 0 : 1;
      });
      matches.textContent = `${count} rows`;
    };
    search.addEventListener("input", look);
    kind.addEventListener("change", look);
  });

  // ---- theme, printing, news

  const themes = ["", "light", "dark"];
  const words = { "": "as the system", light: "light", dark: "dark" };
  const button = document.getElementById("theme");
  const dress = (theme) => {
    if (theme) root.dataset.theme = theme; else delete root.dataset.theme;
    button.textContent = words[theme];
    keep("theme", theme);
  };
  button.addEventListener("click", () => { dress(themes[(themes.indexOf(root.dataset.theme || "") + 1) % 3]); drawAll(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (!root.dataset.theme) drawAll(); });
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details.astable:not([open])")];
    closed.forEach((part) => { part.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((part) => { part.open = false; }));

  if (document.body.dataset.live) {
    const version = document.body.dataset.live;
    setInterval(async () => {
      try {
        const told = await (await fetch("state", { cache: "no-store" })).text();
        if (told !== version) location.reload();
      } catch { /* who serves the page has ended; it stays as it is */ }
    }, 2000);
  }

  // ---- begin

  dress(themes.includes(kept("theme")) ? kept("theme") : "");
  document.querySelectorAll("details.astable").forEach((part) => { part.open = false; });
  (kept("off") || []).forEach(([name, value]) => {
    document.querySelectorAll("#filter input").forEach((box) => { if (box.dataset.filter === name && box.value === value) box.checked = false; });
  });
  document.querySelectorAll("#filter input").forEach((box) => box.addEventListener("change", refilter));
  recount();
  drawAll().then(() => {
    const before = kept("chosen");
    if (before) choose(before);
    root.dataset.drawn = "1";
  });
})();
