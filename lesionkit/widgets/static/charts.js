// The two charts: alpha of every step with the threshold to drag, and a line of voxels through the current maximum.

class Bars {
  constructor(store, parent) {
    this.store = store;
    this.title = make("h4", {}, parent);
    this.canvas = make("canvas.lk-bars", { tabIndex: 0, role: "slider", "aria-label": "threshold on alpha; arrow keys up and down move it, click a bar to go to its step", "aria-orientation": "vertical" }, parent);
    this.listen();
  }
  // One bar a step; without steps one a lesion, the highest first.
  get names() {
    const { steps } = this.store.trajectory;
    return steps.length ? steps.map((step) => step.number) : [...this.store.now.lesions].sort((a, b) => b[1][3] - a[1][3]).map(([found]) => found);
  }

  listen() {
    const { canvas, store } = this;
    let dragging = false;
    const near = (event) => this.scale && Math.abs(event.offsetY - this.scale.Y(store.frame.threshold)) < 7;
    const level = (event) => { const { box, top } = this.scale; return (1 - (event.offsetY - box.top) / box.height) * top; };
    canvas.addEventListener("pointerdown", (event) => {
      if (!this.scale) return;
      if (near(event)) { dragging = true; canvas.setPointerCapture(event.pointerId); return; }
      const { box, names } = this.scale, n = Math.floor(((event.offsetX - box.left) / box.width) * names.length);
      if (n < 0 || n >= names.length) return;
      if (store.trajectory.steps.length) store.goTo(3 * n + 2); else store.moveTo(store.now.lesions.get(names[n]).slice(0, 3));
    });
    canvas.addEventListener("pointermove", (event) => { if (dragging) store.setThreshold(level(event)); else canvas.style.cursor = near(event) ? "ns-resize" : "pointer"; });
    canvas.addEventListener("pointerup", () => { dragging = false; });
    canvas.addEventListener("keydown", (event) => {
      const by = { ArrowUp: 0.01, ArrowDown: -0.01, PageUp: 0.1, PageDown: -0.1 }[event.key];
      if (!by) return;
      event.preventDefault(); event.stopPropagation();
      store.setThreshold(store.frame.threshold + by);
    });
  }

  draw() {
    const { canvas, store, names } = this, { frame, now, trajectory } = store, { steps } = trajectory, c = prepare(canvas), top = store.highest * 1.1, n = names.length;
    canvas.setAttribute("aria-valuenow", frame.threshold.toFixed(3)); canvas.setAttribute("aria-valuemin", 0); canvas.setAttribute("aria-valuemax", store.highest);
    if (!c) return;
    const box = { left: 66, top: 10, width: canvas.clientWidth - 76, height: canvas.clientHeight - 54 }, every = Math.max(1, Math.ceil(n / Math.max(box.width / 32, 1)));
    const xticks = Array.from({ length: n }, (_, i) => i).filter((i) => (i + 1) % every === 0 || (i === 0 && every < 3)).map((i) => [i + 0.5, `${i + 1}`]);
    const xlabel = store.stepped ? "step (click to go there)" : "component (click to go there)";
    const { X, Y } = axes(c, canvas, box, { x: [0, Math.max(n, 1)], y: [0, top], xlabel, ylabel: store.scene.score, xticks });
    this.scale = { X, Y, box, names, top };
    const wide = box.width / Math.max(n, 1), gap = Math.min(2, wide * 0.15), width = Math.max(wide - 2 * gap, 1), done = steps.length ? stepsDone(frame.cursor) : n;
    const { ink, font } = inks(canvas), current = Math.floor(frame.cursor / 3), changes = new Map(changesAt(trajectory, frame.cursor).map((change) => [change.found, change]));
    const outline = (i, alpha, colour, dash) => {
      const y = Y(clamp(alpha, 0, top));
      c.strokeStyle = colour; c.lineWidth = 1.2; c.setLineDash(dash); c.strokeRect(X(i) + gap, y, width, Y(0) - y); c.setLineDash([]);
      if (alpha > top) { c.fillStyle = colour; c.beginPath(); c.moveTo(X(i + 0.5), box.top - 8); c.lineTo(X(i + 0.5) - 4, box.top - 1); c.lineTo(X(i + 0.5) + 4, box.top - 1); c.fill(); }  // cut off
    };
    names.forEach((found, i) => {
      const lesion = now.lesions.get(found), here = i === current && frame.cursor >= 0, change = changes.get(found);
      if (lesion && i < done) {
        c.globalAlpha = now.marks.get(found).word === "below" ? 0.5 : 1;
        c.fillStyle = VERDICTS[now.marks.get(found).word].colour;
        c.fillRect(X(i) + gap, Y(lesion[3]), width, Y(0) - Y(lesion[3]));
        c.globalAlpha = 1;
      } else if (i < done) outline(i, steps[i].alpha ?? 0, VERDICTS.below.colour, [2, 2]);
      else if (here && frame.cursor % 3 === 1) outline(i, steps[i].alpha ?? 0, "#e0a526", []);
      if (change) {  // the old value as a ghost, and an arrow to the new one
        const [from, to] = [change.before[3], change.after?.[3] ?? 0], x = X(i + 0.5), y0 = Y(from), y1 = Y(to), down = y1 > y0 ? 1 : -1;
        c.globalAlpha = 0.75; outline(i, from, ink, [1, 2]); c.globalAlpha = 1;
        if (Math.abs(y1 - y0) > 5) {
          c.strokeStyle = c.fillStyle = ink; c.lineWidth = 1.6;
          c.beginPath(); c.moveTo(x, y0); c.lineTo(x, y1 - 5 * down); c.stroke();
          c.beginPath(); c.moveTo(x, y1); c.lineTo(x - 4, y1 - 6 * down); c.lineTo(x + 4, y1 - 6 * down); c.fill();
        }
      }
      if (here) { c.fillStyle = "#e0a526"; c.beginPath(); c.moveTo(X(i + 0.5), Y(0) + 1); c.lineTo(X(i + 0.5) - 4, Y(0) + 6); c.lineTo(X(i + 0.5) + 4, Y(0) + 6); c.fill(); }
    });
    const y = Y(frame.threshold), label = `keep ${store.scene.score} ≥ ${number(frame.threshold, 3)}`;
    c.strokeStyle = ink; c.fillStyle = ink; c.lineWidth = 1.6; c.setLineDash([6, 4]);
    c.beginPath(); c.moveTo(box.left, y); c.lineTo(box.left + box.width, y); c.stroke(); c.setLineDash([]);
    c.beginPath(); c.roundRect(box.left + box.width - 26, y - 5, 26, 10, 5); c.fill();
    c.font = font; c.textAlign = "right"; c.textBaseline = "bottom";
    c.lineJoin = "round"; c.lineWidth = 4; c.strokeStyle = paper(canvas); c.strokeText(label, box.left + box.width - 32, y - 3);
    c.fillText(label, box.left + box.width - 32, y - 3);
    this.title.textContent = store.stepped ? `Lesions after ${done} of ${n} steps` : `${n} ${n === 1 ? "component" : "components"}`;
  }
}

class Profile {
  constructor(store, planes, parent) {
    Object.assign(this, { store, planes, axis: 0 });
    const heading = make("h4", { textContent: "Profile along " }, parent);
    this.select = make("select", { "aria-label": "axis of the profile" }, heading);
    for (const [value, text] of ["x", "y", "z"].entries()) make("option", { value, textContent: text }, this.select);
    this.select.addEventListener("change", () => { this.axis = +this.select.value; store.changed(); });
    this.canvas = make("canvas", { role: "img", "aria-label": "residual, fit and what is left along a line through the current maximum" }, parent);
  }

  gaussian(p, mu, alpha) {
    const { sigma, peak } = this.store.trajectory;
    let q = 0;
    for (let a = 0; a < this.store.scene.ndim; a++) { const d = (p[a] - mu[a]) / sigma[a]; if (Math.abs(d) > REACH) return 0; q += d * d; }
    return alpha * peak * Math.exp(-0.5 * q);
  }
  // The residual along a line, after the first n steps.
  line(axis, voxel, from, to, n) {
    const { shape, heat_low, heat_high, stride } = this.store.scene, strides = [shape[1] * shape[2], shape[2], 1], values = [], lesions = [...moment(this.store.trajectory, n).values()];
    for (let v = from; v <= to; v++) {
      const p = [...voxel];
      p[axis] = v * stride;
      const o = p.reduce((sum, x, a) => sum + clamp(Math.round(x / stride), 0, shape[a] - 1) * strides[a], 0);
      let value = (this.planes.heat[o] * (heat_high - heat_low)) / 65535 + heat_low;
      for (const [x, y, z, alpha] of lesions) value -= this.gaussian(p, [x, y, z], alpha);
      values.push(value);
    }
    return values;
  }

  draw() {
    const { store, canvas } = this, { step, scene, frame, trajectory } = store, { spacing, stride, shape } = scene;
    this.select.options[2].hidden = scene.ndim === 2;
    if (!step) {
      const c = prepare(canvas);
      if (!c) return;
      const { ink, font } = inks(canvas);
      c.font = font; c.fillStyle = ink; c.globalAlpha = 0.6; c.textAlign = "center";
      c.fillText("step on (→) to see the first maximum", canvas.clientWidth / 2, canvas.clientHeight / 2);
      c.globalAlpha = 1;
      return;
    }
    const a = Math.min(this.axis, scene.ndim - 1), reach = Math.max(Math.ceil(5 * trajectory.sigma[a]), 5), at = Math.round(step.voxel[a] / stride), phase = frame.cursor % 3;
    const from = Math.max(at - Math.ceil(reach / stride), 0), to = Math.min(at + Math.ceil(reach / stride), shape[a] - 1), mm = (v) => (v - step.voxel[a]) * (spacing[a] / stride);
    const x = Array.from({ length: to - from + 1 }, (_, i) => mm((from + i) * stride));
    const before = this.line(a, step.voxel, from, to, step.number), after = this.line(a, step.voxel, from, to, step.number + 1), fine = [], fit = [];
    if (step.mu) for (let v = from; v <= to; v += 0.2) { const p = [...step.voxel]; p[a] = v * stride; fine.push(mm(v * stride)); fit.push(this.gaussian(p, step.mu, step.alpha)); }
    const all = [...before, ...(phase > 1 ? after : []), 0], high = Math.max(...all) * 1.3 || 1, low = Math.min(...all) * 1.08, [w0, w1] = step.window[a];
    lineChart(canvas, {
      x: [x[0], x.at(-1)], y: [low, high], xlabel: "mm from the maximum", ylabel: "lesions per voxel",
      band: [mm(w0 - 0.5), mm(w1 - 0.5)],
      series: [
        { name: "before", x, y: before, colour: "#4aa8ff" },
        ...(phase > 0 && step.mu ? [{ name: "fit", x: fine, y: fit, colour: "#e0a526", fill: true }] : []),
        ...(phase > 1 ? [{ name: "after", x, y: after, colour: "#f2725c", dash: [5, 3] }] : []),
      ],
    });
  }
}
