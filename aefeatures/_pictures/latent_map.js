"use strict";
// Names of columns and classes reach the page through textContent only, and never Plotly, which
// reads some markup in its labels.
(async () => {
  const STEPS = 8; // of a path
  const MOST_COLUMNS = 24; // that a table shows
  // Petroff 2021 (arXiv:2107.02270): ten colours told apart with any kind of colour vision.
  const COLOURS = [
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
  ];
  const SYMBOLS = [["circle", "\u25cf"], ["diamond", "\u25c6"], ["square", "\u25a0"], ["cross", "\u271a"]];
  const GREY = "#8a8f98";
  // Both grow lighter throughout; neither ends where the background is.
  const SCALES = {
    light: ["#440154", "#3b528b", "#21918c", "#45b356", "#cdbb14"],
    dark: ["#7357ad", "#4f7fc4", "#2fb0a8", "#7ad66a", "#fde725"],
  };
  const TYPES = {
    float64: Float64Array, float32: Float32Array, int32: Int32Array, uint16: Uint16Array, uint8: Uint8Array,
  };

  const byId = (id) => document.getElementById(id);
  const map = JSON.parse(byId("contents").textContent);

  async function unpack(packed) {
    const text = atob(packed.data);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
    const inflated = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const array = new TYPES[packed.dtype](await new Response(inflated).arrayBuffer());
    packed.data = null;
    return array;
  }

  /** A function from a row's position to its values in X's units; NaN is missing. */
  async function unpackRows(packed) {
    const array = await unpack(packed);
    const width = packed.shape[1];
    const { offset, scale, missing } = packed;
    if (offset === undefined) return (i) => array.subarray(i * width, (i + 1) * width);
    return (i) => {
      const row = new Float64Array(width);
      for (let j = 0; j < width; j++) {
        const step = array[i * width + j];
        const k = offset.length === 1 ? 0 : j;
        row[j] = step === missing ? NaN : offset[k] + step * scale[k];
      }
      return row;
    };
  }

  // ---- The decoder -----------------------------------------------------------------------

  /** Abramowitz and Stegun 7.1.26, off by at most 1.5e-7. */
  function erf(x) {
    const t = 1 / (1 + 0.3275911 * Math.abs(x));
    const series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
    return Math.sign(x) * (1 - series * Math.exp(-x * x));
  }
  const sigmoid = (x) => 1 / (1 + Math.exp(-x));
  const ACTIVATIONS = {
    relu: (x) => Math.max(x, 0),
    leaky_relu: (x, slope) => (x > 0 ? x : slope * x),
    elu: (x, slope) => (x > 0 ? x : slope * Math.expm1(x)),
    gelu: (x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2)),
    silu: (x) => x * sigmoid(x),
    tanh: Math.tanh,
    sigmoid,
  };
  const LAYERS = {
    linear({ weight, bias }, x) {
      return Float64Array.from(bias, (sum, i) => {
        for (let j = 0, k = i * x.length; j < x.length; j++, k++) sum += weight[k] * x[j];
        return sum;
      });
    },
    affine({ scale, offset }, x) {
      const [s, o] = [scale.length === 1 ? 0 : 1, offset.length === 1 ? 0 : 1];
      return x.map((value, j) => value * scale[s * j] + offset[o * j]);
    },
    layer_norm({ scale, offset, epsilon }, x) {
      const mean = x.reduce((sum, value) => sum + value, 0) / x.length;
      const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length;
      const deviation = Math.sqrt(variance + epsilon);
      return x.map((value, j) => ((value - mean) / deviation) * scale[j] + offset[j]);
    },
    order: ({ order }, x) => Float64Array.from(order, (j) => x[j]),
  };
  function computeLayers(code) {
    let x = Float64Array.from(code);
    for (const layer of map.layers) {
      const activation = ACTIVATIONS[layer.kind];
      x = activation ? x.map((value) => activation(value, layer.slope)) : LAYERS[layer.kind](layer, x);
    }
    return asRow(x);
  }

  /** A row of X from numbers in X's units and a number for each level, of which the largest counts. */
  function asRow(outputs) {
    if (!map.columns) return outputs;
    let first = 0;
    return Float64Array.from(map.columns, (column) => {
      const own = outputs.subarray(first, first += column.n_outputs ?? 1);
      if (column.kind !== "category") return rounded(own[0], column);
      return own.length ? own.indexOf(Math.max(...own)) : NaN;
    });
  }

  /** A number as a value that a column of a table may have. */
  function rounded(number, { kind, step }) {
    if (kind === "boolean") return Number.isNaN(number) ? NaN : Number(number >= 0.5);
    const unit = kind === "integer" ? 1 : step;
    return unit ? Math.round(number / unit) * unit : number;
  }

  /** Between the nodes of the grid, linear along each of its axes. */
  function interpolate(position) {
    let corners = [[0, 1]];
    position.forEach((value, axis) => {
      const nodes = map.nodes[axis];
      let low = 0;
      while (low < nodes.length - 2 && nodes[low + 1] < value) low++;
      const share = Math.min(1, Math.max(0, (value - nodes[low]) / (nodes[low + 1] - nodes[low])));
      corners = corners.flatMap(([index, weight]) => [
        [index * nodes.length + low, weight * (1 - share)],
        [index * nodes.length + low + 1, weight * share],
      ]);
    });
    const result = new Float64Array(map.grid.shape[1]);
    for (const [index, weight] of corners) {
      if (weight) gridRow(index).forEach((value, j) => { result[j] += weight * value; });
    }
    return asRow(result);
  }

  let rowNumbers, codes, points, errors, values, gridRow, reconstruct, target;
  try {
    rowNumbers = await unpack(map.rows);
    [codes, points, errors] = [await unpack(map.codes), await unpack(map.points), await unpack(map.errors)];
    values = await unpackRows(map.values);
    target = map.target ? await unpack(map.target.values) : null;
    if (map.meaning) {
      map.meaning.width = map.meaning.sensitivity.shape[1];
      map.meaning.sensitivity = await unpack(map.meaning.sensitivity);
    }
    if (map.layers) {
      for (const layer of map.layers) {
        for (const name of ["weight", "bias", "scale", "offset"]) {
          if (layer[name]) layer[name] = await unpack(layer[name]);
        }
      }
      reconstruct = (i) => computeLayers(codeOf(i));
    } else {
      gridRow = await unpackRows(map.grid);
      const reconstructed = await unpackRows(map.reconstructions);
      reconstruct = (i) => (map.columns
        ? reconstructed(i).map((value, j) => rounded(value, map.columns[j])) : reconstructed(i));
    }
  } catch (error) {
    report(`This browser cannot unpack the page's data: ${error.message}`);
    throw error;
  }

  const nPoints = rowNumbers.length;
  const nAxes = map.directions.length;
  const nComponents = map.n_components;
  const isImage = Boolean(map.image_shape);
  const codeOf = (i) => codes.subarray(i * nComponents, (i + 1) * nComponents);
  const pointOf = (i) => points.subarray(i * nAxes, (i + 1) * nAxes);
  // Where the sliders stand for row i: its code or, where codes are too many, its point.
  const settingOf = (i) => Array.from(map.sliders_are_codes ? codeOf(i) : pointOf(i));
  const codeOfPoint = (point) => map.mean.map((mean, k) =>
    point.reduce((sum, value, axis) => sum + value * map.directions[axis][k], mean));
  const pointOfCode = (code) => map.directions.map((direction) =>
    direction.reduce((sum, value, k) => sum + value * (code[k] - map.mean[k]), 0));
  function decode(setting) {
    if (!map.layers) return interpolate(setting);
    return computeLayers(map.sliders_are_codes ? setting : codeOfPoint(setting));
  }
  const settingName = (k) => (map.sliders_are_codes ? `code ${k}` : axisName(k));
  const axisName = (k) => (nComponents > 3 ? `component ${k}` : `code ${k}`);

  // ---- Showing rows ----------------------------------------------------------------------

  function report(text) {
    byId("problem").textContent = text;
    byId("problem").hidden = false;
  }

  function make(tag, properties = {}, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  function format(value) {
    if (Number.isNaN(value)) return "missing";
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2);
    return String(Number(value.toPrecision(Math.max(4, Math.ceil(Math.log10(size + 1))))));
  }

  /** Seconds since 1970, on the clock that the data has: the day alone at midnight. */
  function formatDate(seconds, zone) {
    if (Number.isNaN(seconds)) return "missing";
    const date = new Date(Math.round(seconds * 1000));
    if (Number.isNaN(date.getTime())) return format(seconds);
    if (zone) return onClock(date, zone);
    const [day, time] = date.toISOString().split("T");
    return time === "00:00:00.000Z" ? day : `${day} ${time.slice(0, seconds % 60 ? 8 : 5)}`;
  }

  /** A time on the clock of a time zone, in UTC if the browser does not know the zone. */
  function onClock(date, zone) {
    try {
      const text = date.toLocaleString("sv-SE", { timeZone: zone.replace(/^UTC(?=[+-])/, "") });
      return text.replace(/( 00:00)?:00$/, "");
    } catch {
      return `${date.toISOString().slice(0, 16).replace("T", " ")} UTC`;
    }
  }

  function formatDuration(seconds) {
    if (!Number.isFinite(seconds)) return format(seconds);
    const size = Math.abs(seconds);
    const days = Math.floor(size / 86400);
    const clock = new Date((size % 86400) * 1000).toISOString().slice(11, size % 60 ? 19 : 16);
    const parts = days ? [`${days} d`] : [];
    if (clock !== "00:00" || !days) parts.push(clock);
    return (seconds < 0 ? "\u2212" : "") + parts.join(" ");
  }

  // What a column of a table holds; all are numbers in other data.
  const isCategory = (j) => Boolean(map.columns) && map.columns[j].kind === "category";
  function formatAt(j) {
    const { kind, levels, zone } = map.columns ? map.columns[j] : {};
    if (kind === "category") return (value) => levels[value] ?? "missing";
    if (kind === "date") return (value) => formatDate(value, zone);
    if (kind === "duration") return formatDuration;
    if (kind === "boolean") return (value) => ["False", "True"][value] ?? format(value);
    return format;
  }

  function picture(row) {
    const [channels, height, width] = map.image_shape;
    const canvas = make("canvas", { className: "picture", width, height });
    const low = map.values.offset[0];
    const steps = map.values.missing === null ? 255 : 254;
    const image = new ImageData(width, height);
    const size = width * height;
    for (let i = 0; i < size; i++) {
      for (let c = 0; c < 3; c++) {
        const value = row[channels === 3 ? c * size + i : i];
        // Clamped and rounded by the array; missing pixels are transparent.
        image.data[4 * i + c] = ((value - low) / (map.values.scale[0] * steps)) * 255;
      }
      image.data[4 * i + 3] = Number.isNaN(row[i]) ? 0 : 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }

  const captioned = (canvas, caption) => {
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", caption);
    return make("figure", {}, canvas, make("figcaption", { textContent: caption }));
  };

  // Of each column of a table, over the rows shown.
  const lows = [], highs = [], means = [];
  if (!isImage) {
    const width = map.feature_names.length;
    const counts = new Float64Array(width);
    for (let j = 0; j < width; j++) { lows[j] = Infinity; highs[j] = -Infinity; means[j] = 0; }
    for (let i = 0; i < nPoints; i++) {
      values(i).forEach((value, j) => {
        if (Number.isNaN(value)) return;
        lows[j] = Math.min(lows[j], value);
        highs[j] = Math.max(highs[j], value);
        means[j] += value;
        counts[j] += 1;
      });
    }
    for (let j = 0; j < width; j++) {
      means[j] = isCategory(j) ? levelsOf(j)[0]?.[0] ?? NaN : means[j] / Math.max(1, counts[j]);
      if (!counts[j]) { lows[j] = 0; highs[j] = 0; }
    }
  }
  const spread = (j) => highs[j] - lows[j] || 1;

  /** The levels of a category in the rows shown with their numbers of rows, the commonest first. */
  function levelsOf(j) {
    const counts = new Map();
    for (let i = 0; i < nPoints; i++) {
      const level = values(i)[j];
      if (!Number.isNaN(level)) counts.set(level, (counts.get(level) ?? 0) + 1);
    }
    return [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
  }

  /** The columns that a table shows: all, or those where `a` and `b` differ most. */
  function chooseColumns(a, b) {
    const all = map.feature_names.map((_, j) => j);
    if (all.length <= MOST_COLUMNS) return all;
    const distance = (j) => (isCategory(j) ? Number(a[j] !== b[j]) : Math.abs(a[j] - b[j]) / spread(j) || 0);
    return all.sort((j, k) => distance(k) - distance(j)).slice(0, MOST_COLUMNS);
  }

  function note(columns, which) {
    const count = map.feature_names.length;
    if (columns.length === count) return "";
    return make("p", { className: "quiet", textContent: `${columns.length} of ${count} columns: ${which}.` });
  }

  /** Long names go on in a second line, after a mark rather than within a word. */
  function nameCell(j) {
    const parts = map.feature_names[j].split(/(?<=[_/.:-])(?=\w)/);
    return make("th", { scope: "row" }, ...parts.flatMap((part, p) => (p ? [make("wbr"), part] : [part])));
  }

  /** Cells with a column's values. Levels that differ from those of the first row are marked. */
  function cells(j, rows) {
    const formatted = formatAt(j);
    return rows.map((row, r) => {
      const isChanged = isCategory(j) && r > 0 && row[j] !== rows[0][j];
      const className = `${formatted === format ? "" : "text"} ${isChanged ? "changed" : ""}`.trim();
      return make("td", { textContent: formatted(row[j]), className });
    });
  }

  /** A row per column: its name, marks between the column's extremes, and the values. */
  function table(columns, heads, kinds, rows) {
    const body = columns.map((j) => {
      const track = make("div", { className: isCategory(j) ? "" : "track" });
      if (!isCategory(j)) rows.forEach((row, r) => {
        if (Number.isNaN(row[j])) return;
        const mark = make("span", { className: `mark ${kinds[r]}` });
        mark.style.left = `${Math.min(100, Math.max(0, ((row[j] - lows[j]) / spread(j)) * 100))}%`;
        track.append(mark);
      });
      return make("tr", {}, nameCell(j), make("td", { className: "chart" }, track), ...cells(j, rows));
    });
    const head = make("tr", {}, make("th", { scope: "col", textContent: "column" }), make("td", { className: "chart" }),
      ...heads.map((text, r) => make("th", { scope: "col" }, make("span", { className: `key ${kinds[r]}` }), text)));
    return make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
  }

  function line(canvas, series, j) {
    const [width, height] = [150, 18];
    const ratio = window.devicePixelRatio || 1;
    Object.assign(canvas, { width: width * ratio, height: height * ratio });
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    if (isCategory(j)) {
      series.forEach((row, s) => {
        const isEnd = [0, STEPS - 1].map((end) => row[j] === series[end][j]);
        context.fillStyle = style(isEnd[0] ? "--accent" : isEnd[1] ? "--second" : "--quiet");
        context.fillRect(2 + (s / STEPS) * (width - 4), 5, (width - 4) / STEPS - 2, 8);
      });
      return;
    }
    context.strokeStyle = style("--second");
    context.lineWidth = 2;
    context.beginPath();
    series.forEach((row, s) => {
      const share = Math.min(1, Math.max(0, (row[j] - lows[j]) / spread(j)));
      context.lineTo(2 + (s / (STEPS - 1)) * (width - 4), height - 2 - share * (height - 4));
    });
    context.stroke();
  }

  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // ---- What there is to see --------------------------------------------------------------

  const classes = map.target ? map.target.classes : null;
  const visible = classes ? classes.map(() => true) : null;
  // Behind the classes that have a name: other classes, and what is missing.
  const isNamed = (c) => c < map.target.n_named;
  const colourOf = (c) => (isNamed(c) ? COLOURS[c % COLOURS.length] : GREY);
  const symbolOf = (c) => SYMBOLS[isNamed(c) ? Math.floor(c / COLOURS.length) : (c - map.target.n_named) % 2];
  const isVisible = (i) => !classes || visible[target[i]];
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const sortedErrors = Float32Array.from(errors).sort();
  const labelOf = (i) => (map.index ? map.index.labels[i] : "");

  function describe(i) {
    if (!target) return "";
    if (classes) return classes[target[i]];
    return (map.target.is_date ? formatDate : format)(target[i]);
  }

  /** What the points are coloured by, where that is no class. */
  let scale = null;

  /** Numbers of the rows as a scale: between its ends lie all but a few far away. */
  function makeScale(name, numbers, formatted = format) {
    const known = Float64Array.from(numbers).filter(Number.isFinite).sort();
    const at = (share) => known[Math.round(share * (known.length - 1))] ?? 0;
    let [low, high] = [at(0), at(1)];
    const [inner, outer] = [at(0.01), at(0.99)];
    if (outer > inner && high - low > 3 * (outer - inner)) [low, high] = [inner, outer];
    const missing = numbers.reduce((sum, value) => sum + Number.isNaN(value), 0);
    const [below, above] = [numbers.some((value) => value < low), numbers.some((value) => value > high)];
    return { name, numbers, formatted, low, high, missing, below, above };
  }

  /** The commonest levels of a column have a colour each, as far as there are colours. */
  function makeLevelScale(name, j) {
    const [numbers, levels] = [columnOf(j), levelsOf(j)];
    const colours = new Map(levels.slice(0, COLOURS.length).map(([level], k) => [level, COLOURS[k]]));
    const missing = nPoints - levels.reduce((sum, [, n]) => sum + n, 0);
    return { name, numbers, formatted: formatAt(j), levels, colours, missing };
  }
  const columnOf = (j) => Float64Array.from({ length: nPoints }, (_, i) => values(i)[j]);

  const choices = []; // a name and a function that makes the scale, null for classes and none
  if (target) {
    choices.push([map.target.name, classes ? null
      : () => makeScale(map.target.name, target, map.target.is_date ? formatDate : format)]);
  } else {
    choices.push(["one colour", null]);
  }
  choices.push(["reconstruction error", () => makeScale("reconstruction error", errors)]);
  if (!isImage) {
    map.feature_names.forEach((name, j) => choices.push(
      [name, () => (isCategory(j) ? makeLevelScale(name, j) : makeScale(name, columnOf(j), formatAt(j)))]));
  }

  let current = null; // the row shown
  let pins = []; // at most two rows
  let hovered = null; // the row under the pointer
  let pointing = false; // whether the pointer moved in the plot since a row was chosen otherwise
  let setting = []; // of the sliders
  let settingRow = null; // the row that they stand at

  function show(i) {
    current = i;
    byId("row").value = rowNumbers[i];
    byId("index").textContent = labelOf(i);
    byId("class").textContent = describe(i);
    let above = sortedErrors.findIndex((error) => error >= errors[i]);
    if (above < 0) above = nPoints;
    byId("error").textContent =
      `${format(errors[i])} (${map.loss}), larger than ${Math.round((100 * above) / nPoints)}% of rows`;
    const [row, reconstruction] = [values(i), reconstruct(i)];
    if (isImage) {
      byId("record").replaceChildren(make("div", { className: "pair" },
        captioned(picture(row), "row"), captioned(picture(reconstruction), "reconstruction")));
    } else {
      const columns = chooseColumns(row, reconstruction);
      byId("record").replaceChildren(note(columns, "those reconstructed worst"),
        table(columns, ["row", "reconstr."], ["original", "decoded-value"], [row, reconstruction]));
    }
    updatePinButton();
  }

  function select(i) {
    pointing = false;
    show(i);
    setSliders(settingOf(i), i);
  }

  const updatePinButton = () => {
    byId("pin").textContent = pins.includes(current) ? "Unpin" : "Pin";
  };

  function togglePin(i) {
    pins = pins.includes(i) ? pins.filter((pinned) => pinned !== i) : [...pins, i].slice(-2);
    if (i !== current) show(i);
    setSliders(settingOf(i), i);
    updatePinButton();
    showPins();
    draw();
  }

  function pathSettings(a, b) {
    return Array.from({ length: STEPS }, (_, s) => {
      const share = s / (STEPS - 1);
      return a.map((value, k) => value + share * (b[k] - value));
    });
  }

  /** Decoded along the straight line between the codes of two rows; its ends are theirs. */
  function decodePath(i, j) {
    if (map.layers) return pathSettings(Array.from(codeOf(i)), Array.from(codeOf(j))).map(computeLayers);
    const rows = pathSettings(settingOf(i), settingOf(j)).map(decode);
    rows[0] = reconstruct(i);
    rows[STEPS - 1] = reconstruct(j);
    return rows;
  }

  function showPins() {
    byId("path-hint").hidden = pins.length === 2;
    byId("pins").replaceChildren(...pins.map((i, p) => {
      const letter = "AB"[p];
      const label = [labelOf(i), describe(i)].filter(Boolean).join(" \u00b7 ");
      const remove = make("button", { type: "button", textContent: "Unpin" });
      remove.setAttribute("aria-label", `Unpin ${letter}`);
      remove.addEventListener("click", () => togglePin(i));
      return make("div", {}, make("span", { className: "letter", textContent: letter }),
        make("span", { textContent: `row ${rowNumbers[i]}${label && ` \u00b7 ${label}`}` }), remove);
    }));
    if (pins.length < 2) {
      byId("path").replaceChildren();
      return;
    }
    const settings = pathSettings(...pins.map(settingOf));
    const rows = decodePath(...pins);
    if (isImage) {
      byId("path").replaceChildren(make("div", { className: "strip" }, ...rows.map((row, s) => {
        const button = make("button", { type: "button", title: "Set the sliders here" }, picture(row));
        button.setAttribute("aria-label", `Step ${s + 1} of ${STEPS}: set the sliders here`);
        button.addEventListener("click", () => setSliders(settings[s]));
        return button;
      })));
      return;
    }
    const columns = chooseColumns(rows[0], rows[STEPS - 1]);
    const head = make("tr", {}, make("th", { scope: "col", textContent: "column" }),
      make("td", { className: "chart" }), ...["A", "B"].map((textContent) => make("th", { scope: "col", textContent })));
    const body = columns.map((j) => {
      const canvas = make("canvas", { className: "line" });
      line(canvas, rows, j);
      return make("tr", {}, nameCell(j), make("td", { className: "chart" }, canvas),
        ...cells(j, [rows[0], rows[STEPS - 1]]));
    });
    byId("path").replaceChildren(note(columns, "those that change most"),
      make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
  }

  const sliders = [];

  function makeSliders() {
    for (let k = 0; k < (map.sliders_are_codes ? nComponents : nAxes); k++) {
      let [low, high] = [Infinity, -Infinity];
      for (let i = 0; i < nPoints; i++) {
        const value = settingOf(i)[k];
        [low, high] = [Math.min(low, value), Math.max(high, value)];
      }
      if (low === high) [low, high] = [low - 0.5, high + 0.5];
      const input = make("input", { type: "range", id: `slider-${k}`, min: low, max: high, step: "any" });
      const label = make("label", { htmlFor: input.id, textContent: settingName(k) });
      const output = make("output", { htmlFor: input.id });
      input.addEventListener("input", () => {
        setting[k] = Number(input.value);
        settingRow = null;
        decodeSetting();
      });
      input.addEventListener("keydown", (event) => {
        // "any" leaves the size of an arrow key's step to the browser.
        const direction = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
        if (!direction) return;
        event.preventDefault();
        input.value = setting[k] + (direction * (high - low)) / 100;
        input.dispatchEvent(new Event("input"));
      });
      sliders.push({ input, output });
      byId("sliders").append(make("div", { className: "slider" }, label, output, input));
    }
  }

  function setSliders(values, row = null) {
    setting = Array.from(values);
    settingRow = row;
    sliders.forEach(({ input }, k) => { input.value = setting[k]; });
    decodeSetting();
  }

  function decodeSetting() {
    sliders.forEach(({ input, output }, k) => {
      output.textContent = setting[k].toFixed(2);
      input.setAttribute("aria-valuetext", setting[k].toFixed(2));
    });
    const row = decode(setting);
    if (isImage) {
      byId("decoded").replaceChildren(captioned(picture(row), "decoded"));
    } else {
      const columns = chooseColumns(row, means);
      byId("decoded").replaceChildren(note(columns, "those furthest from the mean"),
        table(columns, ["decoded"], ["decoded-value"], [row]));
    }
    draw();
  }

  // ---- What the codes mean ---------------------------------------------------------------

  const DIVERGING = ["#2166ac", "#92c5de", "#f7f7f7", "#f4a582", "#b2182b"];
  const MOST_INFLUENCES = 5; // columns of a code

  const signed = (value) => value.toFixed(2).replace(/^-(?=0\.00$)/, "").replace("-", "\u2212");

  function showMeaning() {
    const { codes: order, drops, r2, sensitivity } = map.meaning;
    const width = map.meaning.width;
    const largest = sensitivity.reduce((most, value) => (Math.abs(value) > most ? Math.abs(value) : most), 0) || 1;
    const of = (k) => sensitivity.subarray(k * width, (k + 1) * width);
    const hints = [`R\u00b2 is ${r2.toFixed(2)} from all codes. Beside each code: how much R\u00b2 changes if the code is held at its mean.`];
    if (isImage) hints.push("A code rises if red pixels get brighter, and falls if blue pixels do.");
    else hints.push("Bars: deviations of the code per deviation of a column.");
    if (map.feature_names.some((_, j) => isCategory(j))) hints.push("A category has no sign.");
    byId("meaning-hint").textContent = hints.join(" ");
    const drop = (k) => `R\u00b2\u00a0${signed(-drops[k])}`;
    if (isImage) {
      byId("meaning").replaceChildren(make("div", { className: "pictures" }, ...order.map((code, k) =>
        captioned(influencePicture(of(k), largest), `code ${code}: ${drop(k)}`))));
      return;
    }
    byId("meaning").replaceChildren(...order.flatMap((code, k) => {
      const size = (j) => Math.abs(of(k)[j]) || 0;
      const columns = map.feature_names.map((_, j) => j).sort((i, j) => size(j) - size(i)).slice(0, MOST_INFLUENCES);
      const body = columns.map((j) => {
        const value = of(k)[j] || 0;
        const bar = make("span", { className: value > 0 ? "up" : "down" });
        bar.style.width = `${(50 * Math.abs(value)) / largest}%`;
        return make("tr", {}, nameCell(j), make("td", { className: "wide" }, make("div", { className: "influence" }, bar)),
          make("td", { className: "number", textContent: signed(value) }));
      });
      return [make("h3", {}, `code ${code}`, make("span", { className: "quiet", textContent: drop(k) })), make("table", {}, make("tbody", {}, ...body))];
    }));
  }

  /** Red if the code rises with a pixel, blue if it falls; the channels of a pixel are added up. */
  function influencePicture(row, largest) {
    const [channels, height, width] = map.image_shape;
    const canvas = make("canvas", { className: "picture", width, height });
    const image = new ImageData(width, height);
    const size = width * height;
    for (let i = 0; i < size; i++) {
      let sum = 0;
      for (let c = 0; c < channels; c++) sum += row[c * size + i] || 0;
      mixed(DIVERGING, (sum / largest + 1) / 2).forEach((value, c) => { image.data[4 * i + c] = value; });
      image.data[4 * i + 3] = 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }

  // ---- The plot --------------------------------------------------------------------------

  const plot = byId("plot");
  const is3d = nAxes === 3;
  const groups = []; // one trace each: the positions of its rows
  if (classes) {
    classes.forEach(() => groups.push([]));
    for (let i = 0; i < nPoints; i++) groups[target[i]].push(i);
  } else {
    groups.push(Array.from({ length: nPoints }, (_, i) => i));
  }

  // One code has no second axis: its points are spread over lines by class.
  const jitter = (i) => ((i * 0.6180339887) % 1) * 0.7 - 0.35;
  const heightOf = (i) => (classes ? target[i] : 0) + jitter(i);
  function coordinates(rows) {
    const axes = { x: [], y: [] };
    if (is3d) axes.z = [];
    for (const i of rows) {
      const point = pointOf(i);
      axes.x.push(point[0]);
      axes.y.push(nAxes === 1 ? heightOf(i) : point[1]);
      if (is3d) axes.z.push(point[2]);
    }
    return axes;
  }

  const size = { 3: nPoints > 1500 ? 3 : nPoints > 300 ? 4 : 6 }[nAxes] || (nPoints > 1500 ? 5 : nPoints > 300 ? 7 : 10);
  const scaleNow = () => SCALES[dark.matches ? "dark" : "light"];
  const channelsOf = (colour) => [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16));
  /** The colour of a number on the scale; infinity has that of the end. */
  function colourOn({ low, high, colours }, value) {
    if (colours) return colours.get(value) ?? GREY;
    if (Number.isNaN(value)) return GREY;
    return `rgb(${mixed(scaleNow(), high > low ? (value - low) / (high - low) : 0.5).map(Math.round)})`;
  }
  /** The channels of the colour at a place between 0 and 1 on a scale. */
  function mixed(scale, place) {
    const stops = scale.map(channelsOf);
    const share = Math.min(1, Math.max(0, place));
    const s = Math.min(stops.length - 2, Math.floor(share * (stops.length - 1)));
    const part = share * (stops.length - 1) - s;
    return stops[s].map((from, c) => from + part * (stops[s + 1][c] - from));
  }
  const type = is3d ? "scatter3d" : "scattergl";

  const places = groups.map(coordinates); // the same arrays at every drawing: Plotly compares them by identity
  let shades = []; // of each group on the scale

  function setScale(made) {
    scale = made;
    shades = scale ? groups.map((rows) => rows.map((i) => colourOn(scale, scale.numbers[i]))) : [];
    makeLegend();
  }

  function traces() {
    const points = groups.map((_, g) => {
      const marker = { size, line: { width: 0 }, opacity: 1, color: COLOURS[0] };
      if (classes) {
        marker.color = colourOf(g);
        marker.symbol = symbolOf(g)[0];
      }
      if (scale) marker.color = shades[g];
      return { type, mode: "markers", ...places[g], marker, hoverinfo: "none", showlegend: false,
        visible: !classes || visible[g] };
    });
    return [...points, ...markTraces()];
  }

  /** The path between the pins, the pins, and where the sliders stand. */
  function markTraces() {
    // Black or white: no class has that colour.
    const [text, card] = [style("--text"), style("--card")];
    const path = { type, mode: "lines", ...coordinates(pins.length === 2 ? pins : []),
      line: { color: text, width: is3d ? 5 : 2 } };
    const pinned = { type, mode: "markers+text", ...coordinates(pins), text: pins.map((_, p) => "AB"[p]),
      textposition: "top center", textfont: { color: text, size: 17 },
      marker: { size: is3d ? 11 : size + 8, symbol: "circle", color: text, line: { width: 2, color: card } } };
    const probe = { type, mode: "markers", x: [], y: [],
      marker: { size: is3d ? 8 : size + 6, symbol: "cross", color: card, line: { width: is3d ? 3 : 2, color: text } } };
    if (is3d) probe.z = [];
    if (setting.length) {
      const point = map.sliders_are_codes ? pointOfCode(setting) : setting;
      probe.x = [point[0]];
      probe.y = [nAxes === 1 ? (classes ? (classes.length - 1) / 2 : 0) : point[1]];
      if (is3d) probe.z = [point[2]];
    }
    // Empty ones would cost the first drawing the time to compile them.
    return [path, pinned, probe].filter((trace) => trace.x.length).map((trace) => {
      const meta = trace === pinned ? "pins" : trace === probe ? "probe" : "path";
      return { ...trace, meta, hoverinfo: trace === path ? "skip" : "none", showlegend: false };
    });
  }

  // A few far codes would shrink the rest to a spot.
  const ranges = Array.from({ length: nAxes }, (_, axis) => {
    const column = Float64Array.from({ length: nPoints }, (_, i) => pointOf(i)[axis]).sort();
    const at = (share) => column[Math.round(share * (nPoints - 1))];
    const padded = (low, high) => {
      const pad = 0.04 * (high - low) || 0.5;
      return [low - pad, high + pad];
    };
    const full = padded(at(0), at(1));
    const margin = 0.1 * (at(0.99) - at(0.01));
    const inner = padded(Math.max(at(0), at(0.01) - margin), Math.min(at(1), at(0.99) + margin));
    return { full, inner: full[1] - full[0] < 1.2 * (inner[1] - inner[0]) ? full : inner };
  });
  const isOuter = (i) => ranges.some(({ inner }, axis) => pointOf(i)[axis] < inner[0] || pointOf(i)[axis] > inner[1]);
  const nOuter = Array.from({ length: nPoints }, (_, i) => isOuter(i)).filter(Boolean).length;
  let onlyInner = nOuter > 0;

  /** As near as shows all points, so that they fill the panel: Plotly's camera is 45 degrees high. */
  function firstCamera() {
    const [height, slope] = [0.5, Math.tan(Math.PI / 8) * 0.82];
    const flat = Math.hypot(1, 1);
    const size = Math.hypot(flat, height);
    const sideways = [-1 / flat, 1 / flat, 0];
    const away = [1 / size, 1 / size, height / size];
    const upwards = [-height / (size * flat), -height / (size * flat), flat / size];
    const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
    const seen = []; // of a cube of size 1: to the right, up, and towards the eye
    for (let i = 0; i < nPoints; i++) {
      if (onlyInner && isOuter(i)) continue;
      const place = Array.from(pointOf(i), (value, axis) => {
        const [low, high] = ranges[axis][onlyInner ? "inner" : "full"];
        return (value - low) / (high - low) - 0.5;
      });
      seen.push([dot(place, sideways), dot(place, upwards), dot(place, away)]);
    }
    const middle = (k) => {
      const [low, high] = seen.reduce(([a, b], place) => [Math.min(a, place[k]), Math.max(b, place[k])], [Infinity, -Infinity]);
      return (low + high) / 2;
    };
    const [right, up] = [middle(0), middle(1)];
    const wide = (plot.clientWidth / plot.clientHeight) || 1;
    const far = seen.reduce((most, [x, y, z]) =>
      Math.max(most, z + Math.abs(x - right) / (slope * wide), z + Math.abs(y - up) / slope), 1);
    const [x, y, z] = [0, 1, 2].map((axis) => right * sideways[axis] + up * upwards[axis]);
    return { eye: { x: x + far * away[0], y: y + far * away[1], z: z + far * away[2] }, center: { x, y, z }, up: { x: 0, y: 0, z: 1 } };
  }
  let camera = is3d ? firstCamera() : null;

  function layout() {
    const axis = (k) => ({
      title: { text: axisName(k), font: { size: 13 } }, range: ranges[k][onlyInner ? "inner" : "full"],
      color: style("--quiet"), gridcolor: style("--grid"), zerolinecolor: style("--line"), linecolor: style("--line"),
      showspikes: false, showbackground: false, nticks: is3d ? 5 : 8, tickfont: { size: 11 },
    });
    const base = {
      margin: is3d ? { l: 0, r: 0, t: 0, b: 0 } : { l: nAxes === 1 ? 12 : 52, r: 12, t: 12, b: 46 },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest",
      font: { color: style("--text") }, dragmode: is3d ? "turntable" : "pan", hoverdistance: 12,
    };
    if (is3d) return { ...base, scene: { xaxis: axis(0), yaxis: axis(1), zaxis: axis(2), aspectmode: "cube", camera } };
    const second = nAxes === 2 ? axis(1) : { visible: false, range: [-0.6, (classes ? classes.length : 1) - 0.4], fixedrange: true };
    return { ...base, xaxis: axis(0), yaxis: second };
  }

  // One drawing at a time, and none for what is outdated before it would start.
  const config = { displayModeBar: false, responsive: true, scrollZoom: true, doubleClick: "reset", showTips: false };
  let drawing = Promise.resolve();
  let wanted = false;
  function draw() {
    if (wanted) return drawing;
    wanted = true;
    drawing = drawing.then(() => new Promise(requestAnimationFrame)).then(() => {
      wanted = false;
      return Plotly.react(plot, traces(), layout(), config);
    }).catch((error) => report(`The plot cannot be drawn: ${error.message}`));
    return drawing;
  }

  function toggle(c, on) {
    visible[c] = on;
    byId("legend").children[c].setAttribute("aria-pressed", on);
  }

  function ticks() {
    const colours = make("div", { className: "scale" });
    colours.style.background = `linear-gradient(to right, ${scaleNow().join(", ")})`;
    const { low, high, formatted, below, above } = scale;
    const texts = [`${below ? "\u2264 " : ""}${formatted(low)}`, formatted((low + high) / 2), `${above ? "\u2265 " : ""}${formatted(high)}`];
    return [colours, make("div", { className: "ticks" }, ...texts.map((textContent) => make("span", { textContent })))];
  }

  function levelKeys() {
    const keys = scale.levels.slice(0, COLOURS.length).map(([level, count]) => {
      const symbol = make("span", { className: "symbol", textContent: SYMBOLS[0][1] });
      symbol.style.color = scale.colours.get(level);
      symbol.setAttribute("aria-hidden", "true");
      return make("span", { className: "level-key" }, symbol,
        make("span", { className: "name", textContent: scale.formatted(level) }), make("span", { className: "quiet count", textContent: count }));
    });
    return [make("div", { className: "levels" }, ...keys)];
  }

  /** What is grey: missing values, and levels without a colour. */
  function scaleNote() {
    const notes = [];
    const others = Math.max(0, (scale.levels?.length ?? 0) - COLOURS.length);
    if (others) notes.push(`${others} other level${others === 1 ? "" : "s"} of ${scale.name}`);
    if (scale.missing) notes.push(`${scale.name} is missing (${scale.missing})`);
    return notes.length ? [make("p", { className: "quiet", textContent: `grey: ${notes.join(", or ")}` })] : [];
  }

  function makeLegend() {
    byId("all-or-none").hidden = !classes;
    const legend = byId("legend");
    legend.hidden = !classes;
    const bar = byId("scale");
    bar.hidden = !scale;
    if (scale) {
      bar.setAttribute("aria-label", `Colour scale of ${scale.name}`);
      bar.replaceChildren(...(scale.colours ? levelKeys() : ticks()), ...scaleNote());
    }
    if (!classes) return;
    legend.replaceChildren(...classes.map((name, c) => {
      const symbol = make("span", { className: "symbol", textContent: symbolOf(c)[1] });
      if (!scale) symbol.style.color = colourOf(c);
      symbol.setAttribute("aria-hidden", "true");
      const button = make("button", { type: "button", title: "Double-click: this class alone" }, symbol,
        make("span", { className: "name", textContent: name }), make("span", { className: "quiet count", textContent: groups[c].length }));
      button.setAttribute("aria-pressed", visible[c]);
      button.addEventListener("click", () => { toggle(c, !visible[c]); draw(); });
      button.addEventListener("dblclick", () => { classes.forEach((_, other) => toggle(other, other === c)); draw(); });
      return button;
    }));
  }

  // ---- Pointer and keys ------------------------------------------------------------------

  let pressed = null;

  /** The row that a point of Plotly's stands for; the marks lie on top of rows. */
  function rowOf(point) {
    if (point.data.meta === "pins") return pins[point.pointNumber] ?? null;
    if (point.data.meta === "probe") return settingRow;
    return groups[point.curveNumber]?.[point.pointNumber] ?? null;
  }

  /** The row drawn nearest to a place on the screen: a finger does not hover. */
  function pick(clientX, clientY) {
    const box = plot.getBoundingClientRect();
    const project = is3d ? projection3d(box) : projection2d();
    let best = null;
    for (let i = 0; project && i < nPoints; i++) {
      if (!isVisible(i) || (onlyInner && isOuter(i))) continue;
      const [x, y, depth] = project(i);
      const distance = Math.hypot(x - (clientX - box.left), y - (clientY - box.top));
      if (distance > 24) continue;
      // Of those under the finger the one in front, else the nearest.
      const rank = distance < 8 ? depth - 1e6 : distance;
      if (best === null || rank < best.rank) best = { row: i, rank };
    }
    return best && best.row;
  }

  function projection2d() {
    const { xaxis, yaxis } = plot._fullLayout;
    return (i) => {
      const point = pointOf(i);
      return [xaxis._offset + xaxis.l2p(point[0]), yaxis._offset + yaxis.l2p(nAxes === 1 ? heightOf(i) : point[1]), 0];
    };
  }

  function projection3d(box) {
    const scene = plot._fullLayout.scene._scene;
    const { model, view, projection } = scene.glplot.cameraParams;
    const apply = (m, v) => [0, 1, 2, 3].map((r) => m[r] * v[0] + m[4 + r] * v[1] + m[8 + r] * v[2] + m[12 + r] * v[3]);
    return (i) => {
      const place = Array.from(pointOf(i), (value, axis) => value * scene.dataScale[axis]);
      const [x, y, , w] = apply(projection, apply(view, apply(model, [...place, 1])));
      return [(box.width * (1 + x / w)) / 2, (box.height * (1 - y / w)) / 2, w];
    };
  }

  function listen() {
    plot.on("plotly_hover", (event) => {
      hovered = rowOf(event.points[0]);
      // A drawing tells it again, though the pointer rests or has left.
      if (pointing && hovered !== null && hovered !== current) show(hovered);
    });
    plot.addEventListener("pointermove", () => { pointing = true; }, true);
    plot.addEventListener("pointerleave", () => { pointing = false; });
    plot.on("plotly_unhover", () => { hovered = null; });
    plot.on("plotly_relayout", () => { if (is3d) camera = plot.layout.scene.camera || camera; });
    // Plotly takes the start of a drag for a click in three dimensions.
    plot.addEventListener("pointerdown", (event) => {
      pressed = { x: event.clientX, y: event.clientY, row: hovered };
    }, true);
    window.addEventListener("pointerup", (event) => {
      const still = pressed && Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) < 5;
      if (still) {
        const row = event.pointerType === "mouse" ? pressed.row : pick(event.clientX, event.clientY);
        if (row !== null && isVisible(row)) togglePin(row);
      }
      pressed = null;
    }, true);

    const step = (direction) => {
      for (let i = (current ?? -direction) + direction; i >= 0 && i < nPoints; i += direction) {
        if (isVisible(i)) { select(i); return; }
      }
    };
    byId("previous").addEventListener("click", () => step(-1));
    byId("next").addEventListener("click", () => step(1));
    byId("pin").addEventListener("click", () => togglePin(current));
    byId("row").addEventListener("change", () => {
      const number = Number(byId("row").value);
      let nearest = 0;
      for (let i = 1; i < nPoints; i++) {
        if (Math.abs(rowNumbers[i] - number) < Math.abs(rowNumbers[nearest] - number)) nearest = i;
      }
      select(nearest);
    });
    byId("row").addEventListener("keydown", (event) => {
      // The rows shown may be a sample: one up is the next that there is.
      const direction = { ArrowUp: 1, ArrowDown: -1 }[event.key];
      if (!direction) return;
      event.preventDefault();
      step(direction);
    });
    byId("reset").addEventListener("click", () => { camera = firstCamera(); draw(); });
    byId("inner").addEventListener("change", () => { onlyInner = byId("inner").checked; draw(); });
    for (const [id, on] of [["all", true], ["none", false]]) {
      byId(id).addEventListener("click", () => { classes.forEach((_, c) => toggle(c, on)); draw(); });
    }
    plot.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && current !== null) { togglePin(current); event.preventDefault(); }
      if (event.key === "n" || event.key === "p") step(event.key === "n" ? 1 : -1);
      if (is3d && turn(event.key)) event.preventDefault();
    });
    byId("colour").addEventListener("change", () => {
      setScale(choices[byId("colour").selectedIndex][1]?.() ?? null);
      draw();
    });
    dark.addEventListener("change", () => { setScale(scale); showPins(); draw(); });
  }

  function turn(key) {
    const { x, y, z } = camera.eye;
    let [radius, around, up] = [Math.hypot(x, y, z), Math.atan2(y, x), Math.asin(z / Math.hypot(x, y, z))];
    if (key === "ArrowLeft") around -= 0.12;
    else if (key === "ArrowRight") around += 0.12;
    else if (key === "ArrowUp") up = Math.min(1.5, up + 0.12);
    else if (key === "ArrowDown") up = Math.max(-1.5, up - 0.12);
    else if (key === "+" || key === "=") radius /= 1.15;
    else if (key === "-") radius *= 1.15;
    else return false;
    const flat = radius * Math.cos(up);
    camera = { ...camera, eye: { x: flat * Math.cos(around), y: flat * Math.sin(around), z: radius * Math.sin(up) } };
    draw();
    return true;
  }

  // ---- Start -----------------------------------------------------------------------------

  const count = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;
  const summary = [
    nPoints < map.n_rows ? `${nPoints.toLocaleString("en")} of ${count(map.n_rows, "row")}, a random sample` : count(nPoints, "row"),
    count(map.feature_names.length, "column"), count(nComponents, "code"),
  ];
  if (nComponents > 3) summary.push("plotted by their first three principal components");
  byId("summary").textContent = summary.join(" \u00b7 ");
  byId("inner-label").hidden = nOuter === 0;
  byId("inner").checked = onlyInner;
  byId("inner-text").textContent = `Leave out the outermost (${nOuter.toLocaleString("en")})`;
  const hints = [];
  if (!map.sliders_are_codes) hints.push("The sliders go along the plotted directions; the others are at their mean.");
  if (!map.layers) hints.push("Pictures between rows are interpolated in a grid of codes decoded beforehand.".replace("Pictures", isImage ? "Pictures" : "Values"));
  byId("decoder-hint").textContent = hints.join(" ");
  plot.setAttribute("aria-label", `Plot of the codes. ${is3d ? "Arrow keys turn it, plus and minus zoom. " : ""}` +
    "N and P go to the next and previous row, Enter pins it.");
  byId("keys").textContent = `${is3d ? "In the plot: arrow keys turn it, + and \u2212 zoom. " : ""}` +
    "In the plot: n and p go to the next and previous row, Enter pins or unpins it. " +
    "In the row's number and on sliders: arrow keys.";
  document.title = byId("title").textContent = map.title;
  byId("index-term").hidden = byId("index").hidden = !map.index;
  byId("class-term").hidden = byId("class").hidden = !target;
  if (map.index) byId("index-term").textContent = map.index.name;
  if (target) byId("class-term").textContent = map.target.name;
  byId("colour").append(...choices.map(([textContent]) => make("option", { textContent })));
  byId("colour").selectedIndex = 0;
  setScale(choices[0][1]?.() ?? null);
  byId("meaning-card").hidden = !map.meaning;
  if (map.meaning) showMeaning();
  makeSliders();
  select(0);
  await draw();
  listen();
  document.querySelector("main").removeAttribute("aria-busy");
})();
