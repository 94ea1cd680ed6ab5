// What stands in for a kernel in an exported page: searches done beforehand, for some values of sigma and both loops, and
// the verdicts at every threshold at which they change. It has the interface of an anywidget model.

class Recording {
  constructor(state, searches, truth, limits) {
    Object.assign(this, { state, searches, truth, limits, handlers: {} });
    this.choose(state.frame.sigma, state.frame.mode);
    this.settle(state.frame.cursor, 0);
  }
  get(name) { return this.state[name]; }
  set(name, value) { this.state[name] = value; this.fire(`change:${name}`); }
  save_changes() {}
  on(event, act) { (this.handlers[event] ??= []).push(act); }
  off(event, act) { this.handlers[event] = (this.handlers[event] ?? []).filter((one) => one !== act); }
  fire(event) { for (const act of this.handlers[event] ?? []) act(); }

  choose(sigma, mode) {
    this.search = this.searches.find((s) => s.sigma === sigma && s.mode === mode);
    this.state.trajectory = this.search.trajectory;
    this.state.frame = { ...this.state.frame, sigma, mode };
  }

  // Lesions after n steps: found -> position and alpha.
  lesions(n) {
    const lesions = new Map();
    for (const change of this.search.trajectory.changes.slice(0, n)) {
      for (const found of change.drop) lesions.delete(found);
      for (const [found, ...values] of change.set) lesions.set(found, values);
    }
    return lesions;
  }

  // Verdicts were noted for each number of lesions that reach the threshold, the highest alpha first.
  judge(noted, alphas) {
    const kept = alphas.filter((alpha) => alpha >= this.state.frame.threshold).length;
    return noted[kept];
  }

  settle(cursor, ack) {
    const { trajectory } = this.search, words = { t: "tp", f: "fp", k: "kept", b: "below" }, last = 3 * trajectory.steps.length - 1;
    cursor = clamp(cursor, -1, last);
    const frame = { ...this.state.frame, cursor, ack }, n = Math.floor((cursor + 1) / 3);
    this.state.frame = frame;
    const now = this.lesions(n), end = this.lesions(trajectory.steps.length), spell = (text) => [...text].map((c) => words[c]);
    frame.verdicts = spell(this.judge(this.search.moments[n].verdicts, [...now.values()].map((v) => v[3])));
    const final = this.search.moments.at(-1), ends = spell(this.judge(final.verdicts, [...end.values()].map((v) => v[3])));
    frame.outcome = [...end].map(([found, values], i) => [found, ...values, ends[i]]);
    const hit = this.truth && this.judge(final.hits, [...end.values()].map((v) => v[3]));
    frame.truth = this.truth;
    frame.truth_found = this.truth && [...hit].map((c) => c === "1");
    const tp = ends.filter((w) => w === "tp").length, fp = ends.filter((w) => w === "fp").length, fn = this.truth ? this.truth.length - tp : 0;
    const share = (a, b) => (b ? a / b : null);
    frame.score = this.truth && { tp, fp, fn, precision: share(tp, tp + fp), recall: share(tp, tp + fn), f1: share(2 * tp, 2 * tp + fp + fn) };
    const step = cursor >= 0 ? trajectory.steps[Math.floor(cursor / 3)] : null, phase = ["maximum", "fit", "subtract"][cursor % 3];
    const fitted = step && cursor % 3 === 2 && now.has(step.number) ? now.get(step.number)[3] : step?.alpha;
    frame.status = !step ? `start, ${trajectory.steps.length} steps`
      : cursor % 3 === 0 ? `${step.number + 1} of ${trajectory.steps.length}, maximum: ${+step.value.toPrecision(3)} at (${step.voxel.slice(0, this.state.scene.ndim).join(", ")})`
      : `${step.number + 1} of ${trajectory.steps.length}, ${phase}: alpha ${number(fitted, 2)}, ${step.status}`;
    if (frame.follow && step) {
      const moved = cursor % 3 === 2 ? now.get(step.number) : null;
      const peak = cursor % 3 === 0 || !step.mu || ["not_converged", "escaped"].includes(step.status) ? step.voxel : moved ? moved.slice(0, 3) : step.mu;
      frame.position = peak.map((x, a) => clamp(x, 0, this.limits[a]));
    }
  }

  send({ command, value, ack }) {
    const frame = { ...this.state.frame };
    this.state.frame = frame;
    let cursor = frame.cursor;
    const last = () => 3 * this.search.trajectory.steps.length - 1;
    if (command === "go_to") cursor = value;
    else if (command === "jump_to_lesion") cursor = 3 * frame.outcome[value][0] + 1;
    else if (command === "move_to") frame.position = [...value, 0].slice(0, 3);
    else if (command === "set_threshold") frame.threshold = value;
    else if (command === "set_follow") frame.follow = value;
    else if (command === "set_speed") frame.speed = value;
    else if (command === "set_sigma") { const atEnd = cursor === last(); this.choose(value, frame.mode); if (atEnd) cursor = last(); }
    else if (command === "set_mode") { const atEnd = cursor === last(); this.choose(frame.sigma, value); if (atEnd) cursor = last(); }
    else if (command === "toggle_playing") {
      frame.playing = !frame.playing && last() >= 0;
      this.clock = performance.now();
      if (frame.playing && cursor >= last()) cursor = -1;
    } else if (command === "tick" && frame.playing) {
      const due = Math.floor(((performance.now() - this.clock) / 1000) * frame.speed);
      if (due > 0) { cursor = Math.min(cursor + due, last()); this.clock = performance.now(); }
      if (cursor >= last()) frame.playing = false;
    }
    const follow = this.state.frame.follow;
    if (command === "move_to") { this.state.frame.follow = false; this.settle(cursor, ack); this.state.frame.follow = follow; }
    else this.settle(cursor, ack);
    queueMicrotask(() => { this.fire("change:trajectory"); this.fire("change:frame"); });
  }
}

const fromBase64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
async function openPage() {
  const stream = new Blob([fromBase64(document.getElementById("lk-data").textContent)]).stream().pipeThrough(new DecompressionStream("gzip"));
  const data = JSON.parse(await new Response(stream).text());
  const state = { ...data.state, image: fromBase64(data.image), heat: fromBase64(data.heat), compact: false };
  renderExplorer({ model: new Recording(state, data.searches, data.truth, data.limits), el: document.getElementById("lk-view") });
}
openPage().catch((error) => {
  document.getElementById("lk-failed").textContent = `The page could not be opened (${error.message}). A browser of 2023 or later is needed; or the file is damaged.`;
});
