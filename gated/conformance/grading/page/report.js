// The pictures of a report: errors against the input, on a line where every power of two has the same room.
"use strict";
(() => {
  const pictures = JSON.parse(document.getElementById("pictures").textContent);
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const FLOOR = -3; // smaller errors are drawn at 10^FLOOR: a logarithmic axis has no 0
  const NARROWEST = 1e-6; // a range of the input's axis, in powers of two

  // [input, error, bound, computed, exact]; null stands for an infinite error, and for a bound where nothing is judged.
  const [INPUT, ERROR, BOUND, COMPUTED, EXACT] = [0, 1, 2, 3, 4];

  // Where an input stands: the symmetric logarithm sign(x) log2(1 + |x| / smallest), linear next to 0.
  const position = (x, smallest) => {
    const steps = Math.abs(x) / smallest;
    return Math.sign(x) * (steps < 2 ** 50 ? Math.log2(1 + steps) : Math.log2(Math.abs(x)) - Math.log2(smallest));
  };
  const input = (t, smallest) => {
    const size = Math.abs(t);
    return Math.sign(t) * (size < 50 ? smallest * (2 ** size - 1) : 2 ** (size + Math.log2(smallest)));
  };

  const label = (x) => {
    if (x === 0) return "0";
    const size = Math.abs(x);
    return size >= 1e-4 && size < 1e6 ? String(Number(x.toPrecision(9))) : x.toExponential().replace("e+", "e");
  };

  // Ticks of a range: powers of ten and 0 where it is wide, else steps of 1, 2 or 5 in the input itself.
  const ticks = ([from, to], smallest) => {
    const [low, high] = [input(from, smallest), input(to, smallest)];
    let candidates = [];
    if (to - from > 12) {
      const least = Math.ceil(Math.log10(smallest)) + 1;
      const most = Math.min(Math.floor(Math.log10(Math.max(Math.abs(low), Math.abs(high)))), 308);
      const decades = (to - from) / Math.log2(10);
      const step = [1, 2, 5, 10, 20, 50, 100, 200].find((one) => decades / one <= 12) ?? 400;
      candidates = [0];
      for (let k = Math.ceil(least / step) * step; k <= most; k += step) candidates.push(Number(`1e${k}`), Number(`-1e${k}`));
    } else {
      const rough = 10 ** Math.floor(Math.log10((high - low) / 5));
      const step = [1, 2, 5, 10].map((one) => one * rough).find((one) => (high - low) / one <= 9);
      if (step > 0) for (let k = Math.ceil(low / step); k * step <= high; k += 1) candidates.push(Number((k * step).toPrecision(12)));
    }
    const kept = [];
    for (const x of candidates) {
      const t = position(x, smallest);
      const room = (to - from) / 16;
      if (t >= from && t <= to && kept.every((one) => Math.abs(one.t - t) >= room)) kept.push({ x, t });
    }
    return { "xaxis.tickvals": kept.map((one) => one.t), "xaxis.ticktext": kept.map((one) => label(one.x)) };
  };

  const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const inUlp = (error) => (error === null ? "wrong class" : `${Number(error.toPrecision(4))} ulp`);
  const bounded = (bound) => (bound === null ? "not judged" : `bound ${Number(bound.toPrecision(4))} ulp`);
  const words = (picture, point) =>
    `${picture.axis} = ${point[INPUT]}: ${inUlp(point[ERROR])}, ${bounded(point[BOUND])}; computed ${point[COMPUTED]}, exact ${point[EXACT]}`;

  const colours = () => {
    const style = getComputedStyle(root);
    const named = {};
    for (const name of ["background", "text", "grid", "line", "accent", "fail", "bound"]) named[name] = style.getPropertyValue(`--${name}`).trim();
    return named;
  };

  const wholeRange = (picture) => {
    const all = picture.points.map((point) => position(point[INPUT], picture.smallest));
    const [least, most] = [Math.min(...all), Math.max(...all)];
    const margin = Math.max((most - least) * 0.02, 0.5);
    return [least - margin, most + margin];
  };

  // Where an error stands. The axis is linear in this: plotly's own logarithmic axis ends at 10^308, and errors do not.
  const height = (error) => Math.max(Math.log10(error), FLOOR);

  const traces = (picture, colour) => {
    const { points, smallest } = picture;
    const t = points.map((point) => position(point[INPUT], smallest));
    const text = points.map((point) => escaped(words(picture, point)));
    const at = (mask, y) => ({
      x: t,
      y: points.map((point, i) => (mask[i] ? y(point) : null)),
      text,
      hoverinfo: "text",
      type: "scatter",
    });
    const finite = points.map((point) => point[ERROR] !== null);
    const past = points.map((point, i) => finite[i] && point[BOUND] !== null && point[ERROR] > point[BOUND]);
    const size = (point) => height(point[ERROR]);
    return [
      {
        ...at(finite, size),
        name: "error",
        mode: "lines+markers",
        line: { color: colour.accent, width: 1 },
        marker: { color: colour.accent, size: 3 },
      },
      { ...at(past, size), name: "past its bound", mode: "markers", marker: { color: colour.fail, size: 6 } },
      {
        ...at(points.map((point) => point[BOUND] !== null), (point) => height(point[BOUND])),
        hoverinfo: "skip",
        name: "bound",
        mode: "lines",
        line: { color: colour.bound, width: 2, dash: "dash" },
      },
      {
        ...at(finite.map((one) => !one), () => 0.5),
        yaxis: "y2",
        name: "wrong class",
        mode: "markers",
        marker: { color: colour.fail, size: 7, symbol: "x" },
      },
    ];
  };

  const layout = (picture, colour, range) => {
    const drawn = picture.points.flatMap((point) => [point[ERROR], point[BOUND]]).filter((one) => one !== null);
    const top = Math.max(0, ...drawn.map(height)) + 0.3;
    const step = Math.ceil((top - FLOOR) / 10);
    const decades = [];
    for (let k = Math.ceil(FLOOR / step) * step; k <= top; k += step) decades.push(k);
    const axis = { color: colour.text, gridcolor: colour.grid, linecolor: colour.line, zeroline: false, showline: true };
    const tick = ticks(range, picture.smallest);
    return {
      paper_bgcolor: colour.background,
      plot_bgcolor: colour.background,
      font: { color: colour.text, size: 13 },
      hoverlabel: { bgcolor: colour.background, bordercolor: colour.line, font: { color: colour.text } },
      margin: { l: 90, r: 20, t: 40, b: 50 },
      legend: { orientation: "h", y: 1.14, x: 0 },
      hovermode: "closest",
      dragmode: "zoom",
      xaxis: {
        ...axis,
        title: { text: escaped(picture.axis) },
        range,
        tickvals: tick["xaxis.tickvals"],
        ticktext: tick["xaxis.ticktext"],
      },
      yaxis: {
        ...axis,
        title: { text: "error in ulp" },
        range: [FLOOR, top],
        tickvals: decades,
        ticktext: decades.map((k) => (Math.abs(k) <= 3 ? String(Number(`1e${k}`)) : `10<sup>${k}</sup>`)),
        domain: [0, 0.86],
        fixedrange: true,
      },
      yaxis2: {
        ...axis,
        range: [0, 1],
        tickvals: [0.5],
        ticktext: ["wrong class"],
        domain: [0.9, 1],
        showgrid: false,
        fixedrange: true,
      },
    };
  };

  const views = pictures.map((picture, index) => ({
    picture,
    chart: document.getElementById(`chart-${index}`),
    status: document.getElementById(`point-${index}`),
    whole: picture.points.length ? wholeRange(picture) : [-1, 1],
    range: null,
    point: null,
  }));

  const draw = (view) => {
    const colour = colours();
    const shapes = layout(view.picture, colour, view.range ?? view.whole);
    return Plotly.react(view.chart, traces(view.picture, colour), shapes, { displayModeBar: false, responsive: true });
  };

  // Shows a range, no wider than the whole one and within it.
  const show = (view, from, to) => {
    const [least, most] = view.whole;
    const width = Math.min(Math.max(to - from, NARROWEST), most - least);
    const start = Math.min(Math.max((from + to - width) / 2, least), most - width);
    view.range = [start, start + width];
    return Plotly.relayout(view.chart, { "xaxis.range": view.range, ...ticks(view.range, view.picture.smallest) });
  };

  const select = (view, index) => {
    const { picture } = view;
    if (!picture.points.length) return;
    view.point = Math.min(Math.max(index, 0), picture.points.length - 1);
    const point = picture.points[view.point];
    view.status.textContent = words(picture, point);
    const t = position(point[INPUT], picture.smallest);
    const [from, to] = view.range ?? view.whole;
    const shown = t < from || t > to ? show(view, t - (to - from) / 2, t + (to - from) / 2) : Promise.resolve();
    shown.then(() => {
      const curveNumber = point[ERROR] === null ? 3 : 0;
      Plotly.Fx.hover(view.chart, [{ curveNumber, pointNumber: view.point }], [curveNumber === 3 ? "xy2" : "xy"]);
    });
  };

  const share = (point) => (point[ERROR] === null ? Infinity : point[BOUND] === null ? 0 : point[ERROR] / point[BOUND]);
  const worst = (picture) => picture.points.reduce((best, point, i, all) => (share(point) > share(all[best]) ? i : best), 0);

  const act = (view, action) => {
    const [from, to] = view.range ?? view.whole;
    const [middle, half] = [(from + to) / 2, (to - from) / 2];
    switch (action) {
      case "in": return show(view, middle - half / 2, middle + half / 2);
      case "out": return show(view, middle - half * 2, middle + half * 2);
      case "left": return show(view, from - half / 2, to - half / 2);
      case "right": return show(view, from + half / 2, to + half / 2);
      case "all": return show(view, ...view.whole);
      case "before": return select(view, (view.point ?? view.picture.points.length) - 1);
      case "after": return select(view, (view.point ?? -1) + 1);
      default: return select(view, worst(view.picture));
    }
  };

  const KEYS = { "+": "in", "=": "in", "-": "out", ArrowLeft: "left", ArrowRight: "right", 0: "all", ",": "before", ".": "after" };

  const table = (picture) => {
    const whole = document.createElement("table");
    const cell = (row, kind, text) => {
      const one = document.createElement(kind);
      if (kind === "th") one.scope = "col";
      else one.className = "number";
      one.textContent = text;
      row.append(one);
    };
    const head = whole.createTHead().insertRow();
    for (const name of [picture.axis, "error", "bound", "computed", "exact"]) cell(head, "th", name);
    const body = whole.createTBody();
    for (const point of picture.points) {
      const row = body.insertRow();
      for (const text of [point[INPUT], inUlp(point[ERROR]), bounded(point[BOUND]), point[COMPUTED], point[EXACT]]) cell(row, "td", text);
    }
    return whole;
  };

  for (const button of document.querySelectorAll("[data-action]"))
    button.addEventListener("click", () => act(views[button.dataset.picture], button.dataset.action));
  for (const details of document.querySelectorAll("[data-points]"))
    details.addEventListener("toggle", () => {
      const place = details.querySelector("div");
      if (details.open && !place.firstChild) place.append(table(views[details.dataset.points].picture));
    });

  const toggle = document.getElementById("theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const paint = () => {
    toggle.setAttribute("aria-pressed", String(isDark()));
    views.forEach(draw);
  };
  toggle.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    paint();
  });
  dark.addEventListener("change", paint);

  paint();
  for (const view of views) {
    view.chart.addEventListener("keydown", (event) => {
      const action = KEYS[event.key];
      if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      act(view, action);
    });
    // The mouse: a range that was drawn, or a double click, which shows all.
    view.chart.on("plotly_relayout", (change) => {
      if (change["xaxis.autorange"]) show(view, ...view.whole);
      else if ("xaxis.range[0]" in change) show(view, change["xaxis.range[0]"], change["xaxis.range[1]"]);
    });
    view.chart.on("plotly_hover", ({ points }) => {
      view.point = points[0].pointNumber;
    });
  }
})();
