/* Draws the charts from the page's data block, and lets tables be sorted and filtered. Without it the page still
   holds every table. */
(() => {
  "use strict";
  const root = document.documentElement;
  const charts = JSON.parse(document.getElementById("chart-data").textContent);
  const plots = [];
  const HEIGHT = 180;
  const PRINTED = 338; // half a sheet of A4, in CSS pixels

  const tone = (name) => getComputedStyle(root).getPropertyValue("--" + name).trim();
  const toneOf = (name) => () => tone(name);

  const WHOLE = [...Array(9).keys()].flatMap((power) => [1, 2, 5].map((step) => step * 10 ** power));

  const number = (value) => {
    if (value == null) return "–";
    const size = Math.abs(value);
    const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : size === 0 ? 0 : 3;
    return value.toLocaleString("en-US", { maximumFractionDigits: digits });
  };
  const clock = (exact) => {
    const seconds = Math.round(exact * 10) / 10;
    const whole = Math.floor(seconds);
    const two = (n) => String(n).padStart(2, "0");
    const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
    const rest = seconds - whole > 0.001 ? (seconds - whole).toFixed(1).slice(1) : "";
    return (h ? h + ":" + two(m) : m) + ":" + two(s) + rest;
  };

  const axis = (extra) => ({
    stroke: toneOf("quiet"),
    font: "11px system-ui, sans-serif",
    grid: { stroke: toneOf("grid"), width: 1 },
    ticks: { stroke: toneOf("grid"), width: 1, size: 4 },
    ...extra,
  });

  /* Vertical lines: moments below the series, values above the bars. */
  const marks = (chart) => (u) => {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.font = 10 * devicePixelRatio + "px system-ui, sans-serif";
    for (const mark of chart.marks) {
      ctx.strokeStyle = ctx.fillStyle = tone(mark.tone);
      ctx.lineWidth = devicePixelRatio;
      ctx.globalAlpha = mark.text ? 1 : 0.4;
      ctx.setLineDash(mark.text ? [4 * devicePixelRatio, 3 * devicePixelRatio] : []);
      for (const at of mark.at) {
        const x = Math.round(u.valToPos(at, "x", true));
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.stroke();
        if (!mark.text) continue;
        const room = ctx.measureText(mark.text).width + 6 * devicePixelRatio;
        const left = mark === chart.marks[0] ? x - room > bbox.left : x + room > bbox.left + bbox.width;
        ctx.textAlign = left ? "right" : "left";
        ctx.fillText(mark.text, x + (left ? -3 : 3) * devicePixelRatio, bbox.top + 10 * devicePixelRatio);
      }
    }
    ctx.restore();
  };

  /* A value between two gaps is no line: it needs a point to be seen. */
  const alone = (v, i, all) => v != null && all[i - 1] == null && all[i + 1] == null;

  const line = (s) => ({
    label: s.label,
    scale: s.scale,
    stroke: toneOf(s.tone),
    width: 1.5,
    dash: s.dashed ? [5, 4] : undefined,
    paths: s.stepped ? uPlot.paths.stepped({ align: 1 }) : undefined,
    points: { show: s.values.some(alone) ? true : undefined, size: 5, fill: toneOf(s.tone) },
    spanGaps: false,
    value: (u, v) => number(v),
  });
  const bar = (s) => ({
    label: s.label,
    scale: s.scale,
    stroke: toneOf(s.tone),
    fill: toneOf(s.tone),
    width: 0,
    paths: uPlot.paths.bars({ size: [0.92, 80], align: s.stepped ? 1 : 0 }),
    points: { show: false },
    value: (u, v) => number(v),
  });

  const options = (chart, width) => {
    const time = chart.kind === "time";
    const scales = { x: { time: false } };
    if (chart.range) scales.x.range = () => chart.range;
    const axes = [
      axis(time
        ? { incrs: [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400],
            values: (u, splits) => splits.map(clock), space: 60, size: 30 }
        : { values: (u, splits) => splits.map((v) => (chart.last != null && v > chart.last ? "" : number(v))), space: 50, size: 30 }),
    ];
    chart.axes.forEach((unit, i) => {
      scales[unit] = { range: (u, low, high) => [Math.min(0, low ?? 0), high > 0 ? high * (time ? 1.08 : 1.18) : 1] };
      axes.push(axis({ scale: unit, side: i ? 1 : 3, size: 52, space: 24, incrs: chart.whole && i === 0 ? WHOLE : undefined, grid: { show: i === 0, stroke: toneOf("grid"), width: 1 },
        values: (u, splits) => splits.map(number) }));
    });
    return {
      width,
      height: HEIGHT,
      padding: [8, chart.axes.length > 1 ? 0 : 18, 0, 0],
      scales,
      axes,
      series: [
        { label: chart.x_label, value: (u, v, s, i) => (i == null ? "–" : time ? clock(u.data[0][i]) : chart.x_texts[i]) },
        ...chart.series.map((s) => (s.bars ? bar(s) : line(s))),
      ],
      legend: {
        markers: {
          width: 0,
          fill: (u, i) => "var(--" + chart.series[i - 1].tone + ")",
        },
      },
      cursor: time ? { sync: { key: "time", setSeries: false }, points: { size: 6 } }
                   : { points: { show: false }, drag: { x: false, y: false } },
      hooks: { [time ? "drawAxes" : "draw"]: [marks(chart)] },
    };
  };

  for (const chart of charts) {
    const place = document.getElementById(chart.id);
    const data = [chart.x, ...chart.series.map((s) => s.values)];
    const plot = new uPlot(options(chart, Math.max(200, place.clientWidth)), data, place);
    const fit = (width) => {
      if (width && width !== plot.width) plot.setSize({ width, height: HEIGHT });
      plot.redraw(true, true);
    };
    plots.push({ place, fit });
    new ResizeObserver(() => {
      const width = place.clientWidth;
      if (width !== plot.width && !root.classList.contains("printing")) fit(width);
    }).observe(place);
  }
  const redraw = () => plots.forEach(({ place, fit }) => fit(place.clientWidth));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("beforeprint", () => {
    root.classList.add("printing");
    document.querySelectorAll("details").forEach((part) => { part.open = true; });
    plots.forEach(({ fit }) => fit(PRINTED));
  });
  addEventListener("afterprint", () => {
    root.classList.remove("printing");
    redraw();
  });

  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a !== typeof b) return typeof a === "number" ? 1 : -1;
    return a.localeCompare(b, "en", { numeric: true });
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const first = head.classList.contains("name") ? "ascending" : "descending";
        const other = first === "ascending" ? "descending" : "ascending";
        const order = head.getAttribute("aria-sort") === first ? other : first;
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => sign * compare(key(a, column), key(b, column)));
        table.tBodies[0].append(...rows);
        table.dispatchEvent(new Event("sorted"));
      });
    });
  }

  /* A long table shows its first rows until it is opened or searched. */
  for (const tools of document.querySelectorAll(".tools[data-table]")) {
    const table = document.getElementById(tools.dataset.table);
    const [search, more] = [tools.querySelector("input"), tools.querySelector("button")];
    const few = Number(tools.dataset.few);
    let all = false;
    const show = () => {
      const wanted = search.value.trim().toLowerCase();
      let shown = 0;
      for (const row of table.tBodies[0].rows) {
        const match = row.cells[0].textContent.toLowerCase().includes(wanted);
        row.hidden = !match || (!wanted && !all && shown >= few);
        shown += row.hidden ? 0 : 1;
      }
      more.hidden = Boolean(wanted);
      more.textContent = all ? "Show the first " + few : "Show all " + table.tBodies[0].rows.length;
    };
    search.addEventListener("input", show);
    more.addEventListener("click", () => { all = !all; show(); });
    table.addEventListener("sorted", show);
    addEventListener("beforeprint", () => { all = true; show(); });
    tools.hidden = false;
    show();
  }
  root.dataset.drawn = String(plots.length);
})();
