// Draws the figures of the page's JSON with ECharts, each once it comes near the screen.
(() => {
  "use strict";
  const { figures, last } = JSON.parse(document.getElementById("data").textContent);
  const byId = new Map(figures.map((figure) => [figure.id, figure]));
  const view = { from: 0, to: last, log: false };
  const SYMBOLS = ["circle", "rect", "triangle", "diamond", "pin", "arrow"];
  const MANY = 14; // rows that a tooltip shows
  const root = document.documentElement;

  const number = (value) =>
    value === 0 ? "0" : Math.abs(value) >= 1e5 || Math.abs(value) < 1e-4
      ? value.toExponential(2) : String(Number(value.toPrecision(4)));

  // --- colours: those of the style sheet, which knows of dark mode ---------------------------------

  const colours = () => {
    const style = getComputedStyle(root);
    const get = (name) => style.getPropertyValue(`--${name}`).trim();
    return {
      text: get("text"), muted: get("muted"), rule: get("rule"), panel: get("panel"),
      series: [0, 1, 2, 3, 4, 5].map((place) => get(`k${place}`)),
    };
  };
  const colourOf = (series, palette) =>
    series.colour < 0 ? palette.text : palette.series[series.colour];

  // --- options -------------------------------------------------------------------------------------

  const axis = (palette, more) => ({
    axisLabel: { color: palette.muted, fontSize: 11, hideOverlap: true },
    axisLine: { lineStyle: { color: palette.rule } },
    axisTick: { show: false },
    splitLine: { lineStyle: { color: palette.rule, opacity: 0.6 } },
    nameTextStyle: { color: palette.muted, fontSize: 11 },
    ...more,
  });

  const frame = (figure, palette) => ({
    animation: false,
    textStyle: { fontFamily: getComputedStyle(document.body).fontFamily, color: palette.text },
    grid: { left: 12, right: figure.small ? 12 : 22, top: figure.small ? 12 : 28,
      bottom: figure.small ? 8 : 26 },
    tooltip: {
      confine: true, className: "tip", backgroundColor: palette.panel, borderColor: palette.rule,
      textStyle: { color: palette.text },
    },
  });

  const vertical = (figure, palette) => axis(palette, {
    type: view.log && figure.kind === "line" ? "log" : "value",
    name: figure.small ? "" : figure.y,
    nameLocation: "end",
    nameTextStyle: { color: palette.muted, fontSize: 11, align: "left" },
    splitNumber: figure.small ? 3 : 5,
    ...(view.log && figure.kind === "line" ? {} : { min: (found) => Math.min(0, found.min) }),
    ...(figure.top && !view.log ? { max: figure.top * 1.05 } : {}),
    axisLabel: {
      color: palette.muted, fontSize: 11, hideOverlap: true,
      formatter: (value) => (figure.top && value > figure.top ? "" : number(value)),
    },
  });

  const within = ([x, y]) => x >= view.from && x <= view.to && !(view.log && y <= 0);

  const lineSeries = (series, points, palette, small) => ({
    type: series.marks ? "scatter" : "line",
    name: series.name,
    data: points,
    color: colourOf(series, palette),
    symbol: series.marks ? SYMBOLS[2 + (series.colour % 4)] : "circle",
    symbolSize: series.marks ? 11 : small ? 4 : 5,
    showSymbol: points.length < 40,
    lineStyle: { width: series.colour < 0 ? 3 : 1.8, type: series.dashed ? [5, 4] : "solid" },
    emphasis: { focus: "series" },
    blur: { lineStyle: { opacity: 0.25 }, itemStyle: { opacity: 0.25 } },
    z: series.marks ? 5 : series.colour < 0 ? 4 : 3,
  });

  const lineOption = (figure, shown, palette) => ({
    ...frame(figure, palette),
    xAxis: axis(palette, {
      type: "value", min: view.from, max: Math.max(view.to, view.from + 1), minInterval: 1,
      splitLine: { show: false }, name: figure.small ? "" : "round", nameLocation: "middle",
      nameGap: 24,
    }),
    yAxis: vertical(figure, palette),
    tooltip: { ...frame(figure, palette).tooltip, trigger: "axis", formatter: tip },
    series: shown.map((series) =>
      lineSeries(series, series.points.filter(within), palette, figure.small)),
  });

  const barOption = (figure, shown, palette) => {
    const rounds = [...new Set(shown.flatMap((series) =>
      series.points.filter(within).map(([x]) => x)))].sort((a, b) => a - b);
    return {
      ...frame(figure, palette),
      xAxis: axis(palette, {
        type: "category", data: rounds, name: "round", nameLocation: "middle", nameGap: 24,
        splitLine: { show: false },
      }),
      yAxis: vertical(figure, palette),
      tooltip: {
        ...frame(figure, palette).tooltip, trigger: "axis", axisPointer: { type: "shadow" },
        formatter: tip,
      },
      series: shown.map((series) => ({
        type: "bar", stack: "all", name: series.name, barMaxWidth: 36, barCategoryGap: "25%",
        color: colourOf(series, palette),
        itemStyle: { borderColor: palette.panel, borderWidth: rounds.length > 40 ? 0 : 0.5 },
        data: series.points.filter(within).map(([x, y]) => [String(x), y]),
      })),
    };
  };

  const dotSeries = (series, place, count, palette) => {
    const shift = (place - (count - 1) / 2) * 0.19;
    const shared = { name: series.name, color: colourOf(series, palette), yAxisIndex: 1 };
    return [
      {
        ...shared, type: "line", silent: true, symbol: "none",
        lineStyle: { width: 3, opacity: 0.5, cap: "round" }, tooltip: { show: false },
        data: series.dots.filter(([, , low]) => low !== null).flatMap(([row, , low, high]) =>
          [[low, row + shift], [high, row + shift], ["-", "-"]]),
      },
      {
        ...shared, type: "scatter", symbolSize: 11, symbol: SYMBOLS[place % SYMBOLS.length],
        itemStyle: { borderColor: palette.panel, borderWidth: 1, opacity: 1 },
        data: series.dots.map((dot) => ({ value: [dot[1], dot[0] + shift], dot })),
      },
    ];
  };

  // Two vertical axes: names in bands, and, unseen, numbers that the dots are placed by.
  const dotOption = (figure, shown, palette) => ({
    ...frame(figure, palette),
    grid: { left: 8, right: 20, top: 8, bottom: 26 },
    xAxis: axis(palette, {
      type: "value", min: 0, max: figure.top, name: figure.y, nameLocation: "middle", nameGap: 24,
      axisLine: { show: false },
    }),
    yAxis: [
      axis(palette, {
        type: "category", data: figure.rows, inverse: true,
        splitLine: { show: true, lineStyle: { color: palette.rule, opacity: 0.6 } },
        axisLabel: { color: palette.text, fontSize: 12, width: 110, overflow: "truncate" },
      }),
      { type: "value", min: -0.5, max: figure.rows.length - 0.5, inverse: true, show: false },
    ],
    tooltip: {
      ...frame(figure, palette).tooltip, trigger: "item",
      formatter: (param) => {
        const [row, value, low, high] = param.data.dot;
        const bounds = low === null ? "" : ` [${Math.round(low)}, ${Math.round(high)}]`;
        return told(figure.rows[row], [[param.seriesName, param.color, number(value) + bounds]]);
      },
    },
    series: shown.flatMap((series, place) => dotSeries(series, place, shown.length, palette)),
  });

  const OPTIONS = { line: lineOption, bars: barOption, dots: dotOption };

  // --- tooltips: elements, never markup, as names come from the network ----------------------------

  const told = (heading, rows) => {
    const made = document.createElement("div");
    const title = document.createElement("b");
    title.textContent = heading;
    made.append(title);
    for (const [name, colour, text] of rows) {
      const row = document.createElement("div");
      row.className = "row";
      const [swatch, label, value] = ["i", "span", "em"].map((tag) => document.createElement(tag));
      swatch.className = "swatch mark";
      swatch.style.color = colour;
      label.textContent = name;
      value.textContent = text;
      row.append(swatch, label, value);
      made.append(row);
    }
    return made;
  };

  const tip = (params) => {
    const rows = params.map((each) => [each.seriesName, each.color, each.value[1]]);
    const order = rows.sort((one, two) => two[2] - one[2]).slice(0, MANY);
    const shown = order.map(([name, colour, value]) => [name, colour, number(value)]);
    if (rows.length > MANY) shown.push([`and ${rows.length - MANY} more`, "transparent", ""]);
    return told(`round ${params[0].value[0]}`, shown);
  };

  // --- drawing -------------------------------------------------------------------------------------

  const drawn = new Map(); // figure's id: { chart, hidden, at }

  const redraw = (id) => {
    const { chart, hidden } = drawn.get(id);
    const figure = byId.get(id);
    const shown = figure.series.filter((_, place) => !hidden.has(place));
    chart.setOption(OPTIONS[figure.kind](figure, shown, colours()), true);
  };

  const draw = (plot) => {
    if (drawn.has(plot.id)) return;
    const figure = byId.get(plot.id);
    if (figure.kind === "dots") {
      const row = 26 + 10 * figure.series.length;
      plot.style.minHeight = `${figure.rows.length * row + 56}px`;
    }
    const chart = echarts.init(plot, null, { renderer: "canvas" });
    drawn.set(plot.id, { chart, hidden: new Set(), at: -1 });
    plot.addEventListener("keydown", (event) => step(event, plot.id));
    redraw(plot.id);
    sizes.observe(plot);
  };

  const redrawAll = () => drawn.forEach((_, id) => redraw(id));
  const sizes = new ResizeObserver((entries) => entries.forEach(({ target }) => {
    const { chart } = drawn.get(target.id);
    if (chart.getWidth() !== target.clientWidth || chart.getHeight() !== target.clientHeight)
      chart.resize();
  }));
  const near = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (entry.isIntersecting) {
      near.unobserve(entry.target);
      draw(entry.target);
    }
  }), { rootMargin: "400px" });

  // --- keyboard: the arrow keys go from round to round ---------------------------------------------

  const step = (event, id) => {
    const moves = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
    const figure = byId.get(id);
    const state = drawn.get(id);
    if (event.key === "Escape") state.chart.dispatchAction({ type: "hideTip" });
    if (!(event.key in moves) || figure.kind === "dots") return;
    event.preventDefault();
    const rounds = [...new Set(figure.series.flatMap((series) =>
      series.points.filter(within).map(([x]) => x)))].sort((a, b) => a - b);
    const to = state.at + moves[event.key];
    state.at = Math.max(0, Math.min(rounds.length - 1, to));
    const x = state.chart.convertToPixel(
      { xAxisIndex: 0 }, figure.kind === "bars" ? String(rounds[state.at]) : rounds[state.at]);
    state.chart.dispatchAction({ type: "showTip", x, y: state.chart.getHeight() / 2 });
    speak(figure, rounds[state.at]);
  };

  const speak = (figure, round) => {
    const parts = figure.series.flatMap((series) => series.points
      .filter(([x]) => x === round).map(([, y]) => `${series.name} ${number(y)}`));
    document.getElementById("live").textContent = `round ${round}: ${parts.join(", ")}`;
  };

  // --- controls ------------------------------------------------------------------------------------

  const toggle = (button) => {
    const id = button.dataset.figure;
    draw(document.getElementById(id));
    const { hidden } = drawn.get(id);
    const place = Number(button.dataset.series);
    if (!hidden.delete(place)) hidden.add(place);
    button.setAttribute("aria-pressed", String(!hidden.has(place)));
    redraw(id);
  };

  const readTools = () => {
    const [from, to] = ["from", "to"].map((id) => Number(document.getElementById(id).value));
    view.from = Math.max(0, Math.min(from, last));
    view.to = Math.max(view.from, Math.min(to, last));
    view.log = document.getElementById("log").checked;
    redrawAll();
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-figure]");
    if (button) toggle(button);
  });
  const tools = document.getElementById("tools");
  tools.addEventListener("change", readTools);
  tools.addEventListener("submit", (event) => event.preventDefault());
  tools.addEventListener("reset", () => setTimeout(readTools));
  document.querySelectorAll("details.later").forEach((details) =>
    details.addEventListener("toggle", () => {
      const template = details.querySelector("template");
      if (template) template.replaceWith(template.content);
    }));

  // --- colour schemes and print --------------------------------------------------------------------

  const plots = [...document.querySelectorAll(".plot")];
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
  addEventListener("beforeprint", () => {
    root.classList.add("printing");
    plots.forEach(draw);
    redrawAll();
  });
  addEventListener("afterprint", () => {
    root.classList.remove("printing");
    redrawAll();
  });

  const ready = () => { root.dataset.ready = String(Math.round(performance.now())); };
  plots.forEach((plot) => near.observe(plot));
  requestAnimationFrame(() => requestAnimationFrame(ready)); // what is near the screen is drawn
})();
