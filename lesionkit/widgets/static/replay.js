// What a search says at each of its steps: lesions replayed from what each step changed, and what threshold and truth make
// of them. Nothing here knows of elements or of a kernel.

const MOMENTS = new WeakMap();  // trajectory -> lesions after 0, 1, 2, ... steps

// The lesions after n steps, found -> [x, y, z, alpha]; found is the number of the step that found it.
function moment(trajectory, n) {
  if (!MOMENTS.has(trajectory)) MOMENTS.set(trajectory, [new Map(trajectory.start.map(([found, ...values]) => [found, values]))]);
  const all = MOMENTS.get(trajectory), last = Math.min(n, trajectory.changes.length);
  while (all.length <= last) {
    const lesions = new Map(all.at(-1)), change = trajectory.changes[all.length - 1];
    for (const found of change.drop) lesions.delete(found);
    for (const [found, ...values] of change.set) lesions.set(found, values);
    all.push(lesions);
  }
  return all[last];
}

const stepsDone = (cursor) => Math.floor((cursor + 1) / 3);
const lastOf = (trajectory) => 3 * trajectory.steps.length - 1;

// Earlier lesions that the step at a cursor has just changed, as far as it is seen: found, before, after (null: removed).
function changesAt(trajectory, cursor) {
  if (cursor < 0 || cursor % 3 !== 2) return [];
  const n = stepsDone(cursor), before = moment(trajectory, n - 1), after = moment(trajectory, n), { set, drop } = trajectory.changes[n - 1];
  const touched = [...set.map(([found]) => found), ...drop].filter((found) => before.has(found));
  const seen = ({ before: was, after: is }) => !is || Math.abs(is[3] - was[3]) >= 0.005 || [0, 1, 2].some((a) => Math.abs(is[a] - was[a]) >= 0.05);
  return touched.map((found) => ({ found, before: before.get(found), after: after.get(found) ?? null })).filter(seen);
}

// Assign rows to columns one to one at the smallest total cost (the Hungarian method by shortest paths); row -> column or -1.
function assign(cost, nRows, nColumns) {
  if (nRows > nColumns) {
    const turned = assign((column, row) => cost(row, column), nColumns, nRows), rows = Array(nRows).fill(-1);
    turned.forEach((row, column) => { rows[row] = column; });
    return rows;
  }
  const u = new Float64Array(nRows + 1), v = new Float64Array(nColumns + 1), owner = new Int32Array(nColumns + 1), way = new Int32Array(nColumns + 1);
  for (let row = 1; row <= nRows; row++) {
    const best = new Float64Array(nColumns + 1).fill(Infinity), seen = new Uint8Array(nColumns + 1);
    let at = 0;
    owner[0] = row;
    do {
      seen[at] = 1;
      let gain = Infinity, next = 0;
      for (let j = 1; j <= nColumns; j++) {
        if (seen[j]) continue;
        const reduced = cost(owner[at] - 1, j - 1) - u[owner[at]] - v[j];
        if (reduced < best[j]) { best[j] = reduced; way[j] = at; }
        if (best[j] < gain) { gain = best[j]; next = j; }
      }
      for (let j = 0; j <= nColumns; j++) if (seen[j]) { u[owner[j]] += gain; v[j] -= gain; } else best[j] -= gain;
      at = next;
    } while (owner[at]);
    for (; at; at = way[at]) owner[at] = owner[way[at]];
  }
  const rows = Array(nRows).fill(-1);
  for (let j = 1; j <= nColumns; j++) if (owner[j]) rows[owner[j] - 1] = j - 1;
  return rows;
}

// Match points one to one as lesionkit.matching does: row -> { to: row of the truth or -1, mm }.
function matchPoints(points, truth, spacing, limit, gate) {
  const nothing = points.map(() => ({ to: -1, mm: null }));
  if (!points.length || !truth.length) return nothing;
  const away = points.map((p) => truth.map((t) => Math.hypot(...p.map((x, a) => (x - t[a]) * spacing[a]))));
  const near = away.flat().filter((d) => d <= limit);
  const forbidden = (Math.min(points.length, truth.length) + 1) * Math.max(0, ...near) || 1;
  const cost = gate === "after" ? (i, j) => away[i][j] : (i, j) => (away[i][j] <= limit ? away[i][j] : forbidden);
  return assign(cost, points.length, truth.length).map((to, i) => (to >= 0 && away[i][to] <= limit ? { to, mm: away[i][to] } : nothing[i]));
}

// Verdicts on some lesions at a threshold: found -> { word, to, mm }, which true points are found, and the counts.
function judge(lesions, { threshold, truth, max_distance, gate }, spacing) {
  const kept = [...lesions].filter(([, [, , , alpha]]) => alpha >= threshold), marks = new Map();
  const pairs = truth ? matchPoints(kept.map(([, values]) => values.slice(0, 3)), truth, spacing, max_distance, gate) : null;
  for (const found of lesions.keys()) marks.set(found, { word: "below", to: -1, mm: null });
  kept.forEach(([found], i) => { marks.set(found, pairs ? { word: pairs[i].to < 0 ? "fp" : "tp", ...pairs[i] } : { word: "kept", to: -1, mm: null }); });
  const hit = (truth ?? []).map(() => false);
  for (const { to } of pairs ?? []) if (to >= 0) hit[to] = true;
  const tp = hit.filter(Boolean).length, fp = kept.length - tp, fn = hit.length - tp, share = (a, b) => (b ? a / b : null);
  return { marks, hit, kept: kept.length, tp, fp, fn, precision: share(tp, tp + fp), recall: share(tp, tp + fn), f1: share(2 * tp, 2 * tp + fp + fn) };
}
