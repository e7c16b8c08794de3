// 4: time. Terms and leaders, what each node did, writes and latency, on one axis.
const LANE = 16, SPANS = [[20_000, '20 s'], [60_000, '1 min'], [180_000, '3 min'], [900_000, '15 min']];
const STEPS_MS = [5000, 10_000, 15_000, 30_000, 60_000, 180_000, 300_000];
const timeline = { span_ms: 60_000, at: () => 0, x: () => 0, rowAt: () => null };

function buildZoom() {
  $('zoom').innerHTML = '';
  for (const [ms, label] of SPANS) {
    const button = el('button', 'btn', $('zoom'), label);
    button.type = 'button';
    put(button, 'aria-pressed', ms === timeline.span_ms);
    button.onclick = () => {
      timeline.span_ms = ms;
      for (const other of $('zoom').children) put(other, 'aria-pressed', other === button);
      draw();
    };
  }
}

function drawTimeline(state) {
  const ids = idsOf(state), canvas = $('line'), u = page.unit, W = page.wide, has99 = record.series.some(point => point.p99 != null);
  const H = (34 + ids.length * LANE + (has99 ? 110 : 76)) * u;
  put(canvas, 'style', `--th:${H}px`);
  const scale = Math.min(2, devicePixelRatio || 1), [width, height] = [Math.round(W * scale), Math.round(H * scale)];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const g = canvas.getContext('2d'), left = 84 * u, to = page.live && !page.replay ? page.at : Math.max(page.at, record.newest);
  const from = to - timeline.span_ms, x = at => left + (W - left - 1) * (at - from) / timeline.span_ms;
  const colours = page.colours, colourOf = id => colours['n' + ((id - 1) % 7 + 1)];
  const font = (weight, px) => { g.font = `${weight} ${px * u}px system-ui, sans-serif`; };
  const laneOf = id => (34 + (ids.indexOf(id) + .5) * LANE) * u;
  g.setTransform(scale, 0, 0, scale, 0, 0);
  g.clearRect(0, 0, W, H);
  g.textBaseline = 'middle';
  const label = (says, y) => { g.fillStyle = colours.ink2; font(400, 12); g.textAlign = 'left'; g.fillText(says, 0, y); };
  const hatch = (a, b, y, h, c, shift = 0) => {
    g.save(); g.beginPath(); g.rect(a, y, Math.max(2, b - a), h); g.clip(); g.strokeStyle = c; g.lineWidth = 1.5; g.beginPath();
    for (let i = a - h + shift; i < b + h + 2; i += 5 * u) { g.moveTo(i, y + h); g.lineTo(i + h, y); }
    g.stroke(); g.restore();
  };
  const says = (px, y, word) => {
    const m = g.measureText(word).width;
    g.clearRect(px - 3 * u, y - 7 * u, m + 6 * u, 14 * u);
    g.fillStyle = colours.ink; g.fillText(word, px, y);
  };
  const band = 26 * u, oldest = Math.max(left, x(Math.min(record.oldest, record.begun ?? record.oldest)));
  label('Leader', band / 2);
  for (const id of ids) {
    label('Node ' + id, laneOf(id));
    g.fillStyle = colourOf(id);
    g.fillRect(oldest, laneOf(id) - .75 * u, Math.max(0, x(to) - oldest), 1.5 * u);
  }
  for (const span of record.spans) {
    const end = Math.min(span.to ?? to, to);
    if (end < from || span.from > to || !ids.includes(span.node)) continue;
    const a = Math.max(left, x(span.from)), b = Math.max(a + 1, x(end)), w = b - a, y = laneOf(span.node), c = colourOf(span.node);
    if (span.what === 'leader') {
      g.fillStyle = c; g.fillRect(a, 0, Math.max(1, w - 1), band); g.fillRect(a, y - 4 * u, w, 8 * u);
      g.fillStyle = colours.on; font(600, 12.5); g.textAlign = 'left';
      const full = `Node ${span.node} · term ${span.term}`;
      if (w > g.measureText(full).width + 20 * u) g.fillText(full, a + 10 * u, band / 2);
      else if (w > 20 * u) g.fillText(span.term, a + 6 * u, band / 2);
    } else if (span.what === 'election') {
      // Two nodes that campaign at once share the band: a split vote is seen as two hatches, side by side.
      hatch(a, b, 0, band, c, ids.indexOf(span.node) % 2 * 2.5 * u); hatch(a, b, y - 5 * u, 10 * u, c);
    } else {
      g.clearRect(a, y - 6 * u, w, 12 * u);
      g.strokeStyle = span.what === 'down' ? colours.ink3 : c; g.lineWidth = 1.5 * u;
      g.setLineDash({ down: [1.5, 5], cut: [4, 4] }[span.what] ?? []);
      g.beginPath();
      if (span.what === 'slow') for (let i = a; i <= b; i += 2) g.lineTo(i, y + Math.sin((i - a) / (3 * u)) * 2.5 * u);
      else { g.moveTo(a, y); g.lineTo(b, y); }
      g.stroke(); g.setLineDash([]); font(600, 12); g.textAlign = 'left';
      if (span.what === 'down') { g.fillStyle = colours.bad; g.fillText('✕', a + 3 * u, y); if (w > 80 * u) says(a + 18 * u, y, 'no answer'); }
      else if (w > 70 * u) says(a + 12 * u, y, span.what === 'slow' ? 'slow disk' : 'link cut');
    }
  }
  // Writes and p99 share the axis: what an election costs stands under it.
  const base = (34 + ids.length * LANE + 12) * u;
  const plot = (value, y, h, name, fill) => {
    label(name, y + h / 2);
    const area = new Path2D(), line = new Path2D(), shown = record.series.filter(point => point.at >= from - 2000 && point.at <= to);
    const top = Math.max(1e-9, ...shown.map(value).map(v => v ?? 0)) * 1.15;
    let pen = false, last = left;
    area.moveTo(left, y + h);
    for (const point of shown) {
      const px = clamp(x(point.at), left, W), v = value(point), py = y + h - h * (v ?? 0) / top;
      if (v == null) { pen = false; area.lineTo(last, y + h); area.lineTo(px, y + h); last = px; continue; }
      if (!pen) area.lineTo(px, y + h);
      area.lineTo(px, py);
      if (pen) line.lineTo(px, py); else line.moveTo(px, py);
      pen = true; last = px;
    }
    area.lineTo(last, y + h);
    if (fill) { g.fillStyle = colours.track; g.fill(area); }
    g.strokeStyle = colours.ink2; g.lineWidth = 1.25; g.stroke(line);
    g.strokeStyle = colours.line; g.beginPath(); g.moveTo(left, y + h + .5); g.lineTo(W, y + h + .5); g.stroke();
  };
  const rate = state.writes_per_s ?? 0;
  plot(point => point.writes, base, 32 * u, rate >= 10_000 ? `${(rate / 1000).toFixed(1)}k/s` : `${count(rate)}/s`, true);
  if (has99) plot(point => point.p99, base + 40 * u, 30 * u, state.p99_ms == null ? 'p99 –' : `p99 ${state.p99_ms.toFixed(1)} ms`, false);
  const step = STEPS_MS.find(ms => ms / timeline.span_ms * (W - left) > 96 * u) ?? 300_000;
  g.fillStyle = colours.ink2; font(400, 12); g.textAlign = 'center';
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
    const m = x(at);
    if (m > left + 28 * u && m < W - 28 * u) g.fillText(clock(at), m, H - 8 * u);
  }
  if (!page.live || page.replay) {
    g.strokeStyle = colours.ink; g.lineWidth = 1.5; g.beginPath(); g.moveTo(x(page.at), 0); g.lineTo(x(page.at), H - 18 * u); g.stroke();
  }
  timeline.x = x;
  /// The row at a height: `leader`, the id of a node, `writes` or `p99`.
  timeline.rowAt = py => py < 34 * u ? 'leader' : ids[Math.floor((py / u - 34) / LANE)] ?? (py < base + 36 * u || !has99 ? 'writes' : 'p99');
  timeline.at = px => clamp(from + (px - left) / (W - left) * timeline.span_ms, record.oldest, record.newest);
}
