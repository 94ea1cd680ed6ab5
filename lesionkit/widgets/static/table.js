// The lesions of this moment as a table: sorted by any column, copied, saved; a click goes to a lesion in every plane.

class LesionTable {
  constructor(store, parent) {
    this.store = store;
    this.sorted = { name: "alpha", up: false };
    const heading = make("h4", {}, parent), buttons = make("span.lk-buttons", {}, heading);
    this.title = make("span", {}, heading);
    heading.prepend(this.title);
    this.copy = make("button", { type: "button", textContent: "copy", title: "copy the table, to paste it into a spreadsheet" }, buttons);
    this.copy.addEventListener("click", () => this.copied());
    make("button", { type: "button", textContent: "save CSV", title: "save the table as a file" }, buttons).addEventListener("click", () => this.saved());
    this.scroll = make("div.lk-scroll", {}, parent);
    this.table = make("table", { role: "grid", "aria-label": "lesions; Enter goes to one" }, this.scroll);
    this.table.addEventListener("click", (event) => {
      const head = event.target.closest("button[data-name]"), row = event.target.closest("tr[data-key]");
      if (head) this.sort(head.dataset.name); else if (row) this.go(row.dataset.key);
    });
    this.table.addEventListener("dblclick", (event) => { const row = event.target.closest("tr[data-key^=l]"); if (row && store.trajectory.steps.length) store.goTo(3 * +row.dataset.key.slice(1) + 2); });
    this.table.addEventListener("keydown", (event) => {
      const row = event.target.closest("tr[data-key]");
      if (!row) return;
      const next = { ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling }[event.key];
      if (next) { next.focus(); this.go(next.dataset.key); } else if (event.key === "Enter" || event.key === " ") this.go(row.dataset.key); else return;
      event.preventDefault(); event.stopPropagation();
    });
  }

  // name, heading, what it means, digits; `wide`: only where there is room.
  get columns() {
    const { scene, frame, trajectory } = this.store, unit = scene.anatomical ? "mm" : "voxels", known = frame.answer && frame.truth, details = trajectory.details.some((row) => row[1] !== null);
    return [
      { name: "number", head: "#", title: trajectory.steps.length ? "the step that found the lesion" : "number of the component", digits: 0 },
      { name: "status", head: "status", title: "what the threshold keeps; with the answer shown, what the truth says of it" },
      { name: "alpha", head: scene.score, title: scene.score_help, digits: 3 },
      ...["x", "y", "z"].slice(0, scene.ndim).map((name) => ({ name, head: `${name} ${unit}`, title: scene.anatomical ? `position in mm, RAS+: ${{ x: "to the patient's right", y: "forwards", z: "upwards" }[name]}` : "position, voxel index", digits: 1 })),
      ...(known ? [{ name: "distance", head: "off mm", title: `distance to the true lesion it is matched with, at most ${number(frame.max_distance, 0)} mm`, digits: 1, wide: 2 }] : []),
      ...(known && frame.truth_sizes ? [{ name: "size", head: "size", title: "voxels of the true lesion", digits: 0, wide: 2 }] : []),
      ...(details ? [
        { name: "alpha_se", head: "± se", title: "alpha_se: standard error of alpha, from the fit and what it leaves (of the finished search)", digits: 3, wide: 1 },
        { name: "explained", head: "explained", title: "share of the heatmap's energy around the lesion that its Gaussian explains, 0 to 1 (of the finished search)", digits: 2, wide: 1 },
      ] : []),
    ];
  }
  rows() {
    const { store } = this, { scene, frame, now } = store, details = new Map(store.ended ? store.trajectory.details.map(([found, ...values]) => [found, values]) : []);
    const place = (mu) => { const [x, y, z] = scene.anatomical ? store.mm(mu) : mu; return { x, y, z }; };
    const rows = [...now.lesions].map(([found, [x, y, z, alpha]]) => {
      const { word, to, mm } = now.marks.get(found), [alpha_se, explained] = details.get(found) ?? [null, null];
      return { key: `l${found}`, mark: word, number: found + 1, status: VERDICTS[word].word, alpha, ...place([x, y, z]), distance: mm, size: to < 0 ? null : frame.truth_sizes?.[to] ?? null, alpha_se, explained };
    });
    const missed = frame.answer ? (frame.truth ?? []).flatMap((mu, n) => (now.hit[n] ? [] : [{ key: `t${n}`, mark: "fn", number: null, status: VERDICTS.fn.word, alpha: null, ...place(mu), distance: null, size: frame.truth_sizes?.[n] ?? null, alpha_se: null, explained: null }])) : [];
    const { name, up } = this.sorted, order = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
    return [...rows, ...missed].sort((p, q) => (p[name] === null) - (q[name] === null) || (up ? 1 : -1) * order(p[name], q[name]));  // unknown values last
  }
  sort(name) {
    const same = this.sorted.name === name;
    this.sorted = { name, up: same ? !this.sorted.up : ["number", "status", "distance"].includes(name) };
    this.store.changed(true);
  }
  go(key) {
    const n = +key.slice(1), mu = key[0] === "l" ? this.store.now.lesions.get(n) : this.store.frame.truth[n];
    this.store.chosen = key;
    this.store.moveTo(mu.slice(0, 3));
  }

  text(separator) {
    const columns = this.columns, cell = (value, digits) => (value === null ? "" : typeof value === "number" ? `${+value.toFixed(digits + 1)}` : value);
    const quoted = (text) => (text.includes(separator) || text.includes('"') ? `"${text.replaceAll('"', '""')}"` : text);
    return [columns.map((column) => column.head), ...this.rows().map((row) => columns.map(({ name, digits }) => cell(row[name], digits)))].map((line) => line.map((value) => quoted(`${value}`)).join(separator)).join("\n") + "\n";
  }
  async copied() {
    const text = this.text("\t");
    try { await navigator.clipboard.writeText(text); } catch {  // a page from a file may have no clipboard of its own
      const area = make("textarea", { value: text }, this.scroll);
      area.select(); document.execCommand("copy"); area.remove();
    }
    this.copy.textContent = "copied";
    setTimeout(() => { this.copy.textContent = "copy"; }, 1500);
  }
  saved() {
    const link = make("a", { href: URL.createObjectURL(new Blob([this.text(",")], { type: "text/csv" })), download: `${this.store.scene.title.replace(/[^\w.-]+/g, "_") || "lesions"}_lesions.csv` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  draw() {
    const { store } = this, columns = this.columns, rows = this.rows(), key = JSON.stringify([columns.map((column) => column.head), rows, this.sorted]);
    if (this.key !== key) {
      this.key = key;
      const focused = document.activeElement?.closest?.("tr[data-key]")?.dataset.key;
      const wide = (column) => (column.wide ? `lk-wide${column.wide}` : "");
      const head = columns.map((column) => `<th scope="col" class="${wide(column)}" title="${column.title}" aria-sort="${this.sorted.name !== column.name ? "none" : this.sorted.up ? "ascending" : "descending"}"><button type="button" data-name="${column.name}" data-lm-suppress-shortcuts="true">${column.head}</button></th>`);
      const body = rows.map((row, n) => `<tr data-key="${row.key}" data-lm-suppress-shortcuts="true" tabindex="${n ? -1 : 0}" class="lk-${row.mark}">${columns.map((column) => `<td class="${wide(column)}${column.name === "status" ? " lk-word" : ""}">${column.digits === undefined ? row[column.name] : number(row[column.name], column.digits)}</td>`).join("")}</tr>`);
      this.table.innerHTML = `<thead><tr>${head.join("")}</tr></thead><tbody>${body.join("")}</tbody>`;
      this.table.querySelector(`tr[data-key="${focused}"]`)?.focus({ preventScroll: true });
      this.title.textContent = rows.length ? `Lesions${store.ended ? "" : " so far"}` : store.ended ? "No lesions" : "No lesion yet";
    }
    const chosen = store.chosen ?? (store.step ? `l${store.step.number}` : "");
    for (const row of this.table.querySelectorAll("tr[data-key]")) row.setAttribute("aria-selected", row.dataset.key === chosen);
    const row = this.table.querySelector(`tr[data-key="${chosen}"]`);
    if (row && this.chosen !== chosen) {  // in sight, without moving the page
      const top = row.offsetTop - this.table.tHead.offsetHeight;
      if (top < this.scroll.scrollTop || top + 2 * row.offsetHeight > this.scroll.scrollTop + this.scroll.clientHeight) this.scroll.scrollTop = top - this.scroll.clientHeight / 3;
    }
    this.chosen = chosen;
  }
}
