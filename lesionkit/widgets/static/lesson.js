// A lesson: sliders whose values go to the kernel, and the panels that come back.

function renderLesson({ model, el }) {
  const root = make("div.lk-lesson", {}, el);
  const title = make("h4", {}, root), controls = make("div.lk-controls", {}, root), panels = make("div.lk-panels", {}, root);
  const note = make("div.lk-note", { "aria-live": "polite" }, root), error = make("div.lk-error", { role: "alert", hidden: true }, root);
  const inputs = new Map(), figures = [];
  let waiting = null, flight = null, asked = 0, scheduled = false, drawn = 0;

  for (const control of model.get("controls")) {
    const box = make("label", {}, controls);
    make("span", { textContent: control.label }, box);
    const input = control.options ? make("select", { "aria-label": control.label }, box)
      : make("input", { type: "range", min: control.min, max: control.max, step: control.step, "aria-label": control.label }, box);
    for (const option of control.options ?? []) make("option", { value: option, textContent: option }, input);
    const output = make("output", {}, box);
    input.dataset.name = control.name;
    input.addEventListener("input", () => {
      waiting = { ...waiting, [control.name]: control.options ? input.value : +input.value };
      if (!control.options) output.textContent = +input.value;
      flush();
    });
    inputs.set(control.name, [input, output, control]);
  }

  // One question at a time: the latest values win.
  function flush() {
    if (flight !== null || !waiting) return;
    flight = ++asked;
    model.send({ values: waiting, ack: asked });
    waiting = null;
    const mine = flight;
    setTimeout(() => { if (flight === mine) { flight = null; flush(); } }, 10000);
  }

  function draw() {
    scheduled = false;
    title.textContent = model.get("title");
    note.textContent = model.get("note");
    error.textContent = model.get("error");
    error.hidden = !error.textContent;
    if (flight === null && !waiting) {
      const values = model.get("values");
      for (const [name, [input, output, control]] of inputs) {
        if (`${input.value}` !== `${values[name]}`) input.value = values[name];
        if (!control.options) output.textContent = +values[name].toFixed(4);
      }
    }
    const all = model.get("panels");
    while (figures.length < all.length) {
      const figure = make("figure", {}, panels);
      figures.push({ figure, caption: make("figcaption", {}, figure), canvas: make("canvas", { role: "img" }, figure), buffer: document.createElement("canvas") });
    }
    figures.forEach(({ figure, caption, canvas, buffer }, n) => {
      const panel = all[n];
      figure.hidden = !panel;
      if (!panel) return;
      caption.textContent = panel.title;
      canvas.setAttribute("aria-label", panel.title || "chart");
      Object.assign(canvas.style, { width: `${panel.width}px`, height: `${panel.height}px` });
      if (panel.kind === "lines") lineChart(canvas, panel.spec); else drawPicture(canvas, buffer, panel.spec);
    });
    root.dataset.drawn = ++drawn;
    root.dataset.ack = model.get("ack");
  }

  const bytesOf = (v) => (v instanceof Uint8Array ? v : new Uint8Array(v.buffer ?? v, v.byteOffset ?? 0, v.byteLength));
  function drawPicture(canvas, buffer, spec) {
    const c = prepare(canvas);
    if (!c) return;
    const grey = spec.grey && bytesOf(spec.grey), warm = spec.warm && new Float32Array(bytesOf(spec.warm).slice().buffer);
    paintSlice(buffer, spec.width, spec.height, grey, warm, 0.8);
    const w = canvas.clientWidth, h = canvas.clientHeight, sx = w / spec.width, sy = h / spec.height;
    const X = (v) => (v + 0.5) * sx, Y = (v) => h - (v + 0.5) * sy;
    c.imageSmoothingEnabled = sx < 6;
    c.drawImage(buffer, 0, 0, w, h);
    for (const [x0, y0, x1, y1, colour] of spec.segments) {
      for (const [style, width] of [["rgb(0 0 0 / .6)", 3.4], [colour, 1.8]]) { c.strokeStyle = style; c.lineWidth = width; c.beginPath(); c.moveTo(X(x0), Y(y0)); c.lineTo(X(x1), Y(y1)); c.stroke(); }
    }
    for (const [x, y, rx, ry, colour, dashed] of spec.rings) ring(c, X(x), Y(y), rx * sx, ry * sy, colour, { dash: dashed ? [5, 4] : [] });
    for (const [x, y, colour] of spec.crosses) cross(c, X(x), Y(y), colour);
  }

  const redraw = () => { if (!scheduled) { scheduled = true; requestAnimationFrame(draw); } };
  const answered = () => { if (flight !== null && model.get("ack") >= flight) { flight = null; flush(); } redraw(); };
  model.on("change:ack", answered);
  for (const name of ["panels", "note", "error", "values"]) model.on(`change:${name}`, redraw);
  redraw();
  return () => { model.off("change:ack", answered); for (const name of ["panels", "note", "error", "values"]) model.off(`change:${name}`, redraw); };
}
