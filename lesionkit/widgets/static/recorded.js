// What stands in for a kernel in an exported page: searches done beforehand, for some values of sigma and both loops. It has
// the interface of an anywidget model.

class Recording {
  constructor(state, searches) {
    Object.assign(this, { state, searches, handlers: {} });
    this.choose({ sigma: state.frame.sigma, mode: state.frame.mode });
  }
  get(name) { return this.state[name]; }
  set(name, value) { this.state[name] = value; this.fire(`change:${name}`); }
  save_changes() {}
  on(event, act) { (this.handlers[event] ??= []).push(act); }
  off(event, act) { this.handlers[event] = (this.handlers[event] ?? []).filter((one) => one !== act); }
  fire(event) { for (const act of this.handlers[event] ?? []) act(); }

  choose({ sigma = this.state.frame.sigma, mode = this.state.frame.mode }) {
    const search = this.searches.find((s) => s.sigma === sigma && s.mode === mode) ?? this.searches[0];
    this.state.trajectory = search.trajectory;
    this.state.frame = { ...this.state.frame, sigma, mode };
  }
  get last() { return lastOf(this.state.trajectory); }

  go(cursor) {
    const { frame } = this.state;
    frame.cursor = clamp(cursor, -1, this.last);
    if (frame.cursor === this.last && this.last >= 0) frame.answer = !!frame.truth;
    this.look();
  }
  look() {
    const { frame, scene, trajectory } = this.state, look = frame.follow && trajectory.look[frame.cursor + 1];
    if (look) frame.position = look.map((x, a) => clamp(x, 0, scene.shape[a] * scene.stride - 1));
  }
  again(change) {  // with other settings; who is at the end stays there
    const atEnd = this.state.frame.cursor === this.last, { cursor } = this.state.frame;
    this.choose(change);
    this.state.frame.cursor = atEnd ? this.last : Math.min(cursor, this.last);
    this.look();
  }
  jump(kind) {
    const { frame, scene, trajectory } = this.state, lesions = moment(trajectory, trajectory.steps.length);
    const { marks, hit } = judge(lesions, frame, scene.spacing.map((s) => s / scene.stride));
    if (kind === "fn") {
      const missed = (frame.truth ?? []).filter((_, n) => !hit[n]), here = missed.findIndex((p) => `${p}` === `${frame.position}`);
      if (missed.length) Object.assign(frame, { answer: true, position: [...missed[(here + 1) % missed.length]] });
      return;
    }
    const wanted = kind === "kept" ? trajectory.steps.filter((s) => s.status === "kept").map((s) => s.number) : [...marks].filter(([, m]) => m.word === "fp").map(([found]) => found).sort((a, b) => a - b);
    if (!wanted.length) return;
    if (kind === "fp") frame.answer = true;
    this.go(3 * (wanted.find((n) => n > Math.floor(frame.cursor / 3)) ?? wanted[0]) + 2);
  }
  play() {
    const { frame } = this.state;
    frame.playing = !frame.playing && this.last >= 0;
    this.clock = performance.now();
    if (frame.playing && frame.cursor >= this.last) this.go(-1);
  }
  tick() {
    const { frame } = this.state, due = Math.floor(((performance.now() - this.clock) / 1000) * frame.speed);
    if (!frame.playing || due < 1) return;
    this.clock = performance.now();
    this.go(frame.cursor + due);
    frame.playing = frame.cursor < this.last;
  }

  send({ command, value, ack }) {
    const frame = (this.state.frame = { ...this.state.frame, ack });
    const acts = {
      go_to: () => this.go(value), jump_to_next: () => this.jump(value), show_answer: () => { frame.answer = value; },
      move_to: () => { frame.position = [...value, 0].slice(0, 3); }, set_threshold: () => { frame.threshold = value; },
      set_follow: () => { frame.follow = value; this.look(); }, set_speed: () => { frame.speed = value; },
      set_sigma: () => this.again({ sigma: value }), set_mode: () => this.again({ mode: value }),
      toggle_playing: () => this.play(), tick: () => this.tick(),
    };
    acts[command]();
    queueMicrotask(() => { this.fire("change:trajectory"); this.fire("change:frame"); });
  }
}

const fromBase64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
async function openPage() {
  const stream = new Blob([fromBase64(document.getElementById("lk-data").textContent)]).stream().pipeThrough(new DecompressionStream("gzip"));
  const data = JSON.parse(await new Response(stream).text());
  const bytes = (name) => fromBase64(document.getElementById(`lk-${name}`).textContent);
  const state = { ...data.state, image: bytes("image"), heat: bytes("heat"), compact: false };
  renderExplorer({ model: new Recording(state, data.searches), el: document.getElementById("lk-view") });
}
openPage().catch((error) => {
  document.getElementById("lk-failed").textContent = `The page could not be opened (${error.message}). A browser of 2023 or later is needed; or the file is damaged.`;
});
