// Explanations: one tip, by hover, focus and tap. Escape closes it.
const tip = { of: null };
const TIPPED = '[data-x],[data-node],[data-link]';
/// The element that explains another one: itself, one around it, or the name of its row.
function explained(element) {
  const found = element.closest?.(TIPPED), cell = element.closest?.('.fall > *');
  if (found || !cell) return found;
  let name = cell;
  while (name && !name.dataset.x) name = name.previousElementSibling;
  return name;
}

function tipOf(target) {
  const state = page.state;
  if (target.dataset.node) return tipOfNode(state, Number(target.dataset.node));
  if (target.dataset.link) return tipOfLink(state, target);
  const [title, says, reference] = MEANS[target.dataset.x] ?? [];
  return title && `<b>${title}</b>${says}${reference ? `<em>${source_of(reference)}</em>` : ''}`;
}
function tipOfNode(state, id) {
  const node = state.nodes[id];
  if (!node) return null;
  const labels = Object.entries(node.labels ?? {}).map(([key, value]) => `${key}=${value}`).join(', ');
  const facts = [...(isSilent(node) ? [['Last heard', node.seen ? duration(node.seen.age_ms) + ' ago' : 'never']] : node.seen?.via ? [['Heard over', 'node ' + node.seen.via]] : []),
    ['Role', ROLES[node.role] ?? node.role ?? '–'], ['Term', node.term ?? '–'], ['Voted for', node.vote ? 'node ' + node.vote : 'none'], ['First entry', count(node.first)],
    ['Snapshot up to', count(node.snapshot)], ['Applied', count(node.applied)], ['Committed', count(node.commit)], ['Durable', count(node.durable)], ['Last', count(node.last)],
    ['Sync', node.sync_ms == null ? '–' : node.sync_ms.toFixed(1) + ' ms'], ['Raft address', node.address ?? '–'], ['HTTP', node.http ?? '–'], ...(labels ? [['Labels', labels]] : [])];
  return `<b>Node ${id}</b><dl>${facts.map(([name, value]) => `<dt>${name}</dt><dd>${text(value)}</dd>`).join('')}</dl><em>Raft paper, Figure 2</em>`;
}
function tipOfLink(state, target) {
  const [a, b] = target.dataset.link.split('>').map(Number), [title, says, reference] = LINKS[target.dataset.kind] ?? LINKS.up;
  const facts = [[a, b], [b, a]].flatMap(([from, to]) => {
    const link = state.links[`${from}>${to}`];
    return !link ? [] : [[`${from} to ${to}`, link.state], ...(link.rtt_ms == null ? [] : [['Round trip', link.rtt_ms.toFixed(2) + ' ms']]),
      ...(link.in_flight == null ? [] : [['In flight', count(link.in_flight)]]), ...(link.match == null ? [] : [['Match', count(link.match)], ['Next', count(link.next)]])];
  });
  return `<b>${title} between nodes ${a} and ${b}</b>${says}<dl>${facts.map(([name, value]) => `<dt>${name}</dt><dd>${text(value)}</dd>`).join('')}</dl><em>${source_of(reference)}</em>`;
}

/// What stands at a point of the timeline.
function tipOfMoment(px, py) {
  const at = timeline.at(px), row = timeline.rowAt(py);
  if (row === 'writes' || row === 'p99') {
    const point = record.series.findLast(one => one.at <= at), [title, says, reference] = MEANS[row];
    const value = row === 'p99' ? `${point?.p99?.toFixed(1) ?? '–'} ms` : `${count(point?.writes)} entries/s`;
    return `<b>${title}: ${value}</b>At ${clock(at)}. ${says}<em>${source_of(reference)}</em>`;
  }
  const spans = record.spans.filter(span => span.from <= at && at <= (span.to ?? record.newest));
  const span = row === 'leader' ? spans.find(one => one.what === 'leader') ?? spans.find(one => one.what === 'election')
    : spans.findLast(one => one.node === row);
  if (!span) {
    const [title, says, reference] = SPANS_MEAN[row === 'leader' ? 'none' : 'follower'];
    return `<b>${row === 'leader' ? '' : `Node ${row}: `}${title}</b>At ${clock(at)}. ${says}<em>${source_of(reference)}</em>`;
  }
  const [title, says, reference] = SPANS_MEAN[span.what], lasted = duration((span.to ?? record.newest) - span.from);
  return `<b>Node ${Number(span.node)}: ${title}${span.term == null ? '' : `, term ${Number(span.term)}`}</b>From ${clock(span.from)}, ${
    span.to == null ? `for ${lasted} so far` : `for ${lasted}`}. ${says}<em>${source_of(reference)}</em>`;
}
function showMoment(px, py) {
  const canvas = $('line'), around = canvas.getBoundingClientRect();
  show(canvas, tipOfMoment(px, py), new DOMRect(around.left + px, around.top + py - 8, 0, 24));
}

function showTip(target) { show(target, tipOf(target), target.getBoundingClientRect()); }
function show(target, html, around) {
  const box = $('tip');
  if (!html) return;
  box.innerHTML = html;
  box.hidden = false;
  const w = box.offsetWidth, h = box.offsetHeight;
  const top = around.bottom + 8 + h > innerHeight && around.top > h + 8 ? around.top - h - 8 : around.bottom + 8;
  box.style.left = clamp(around.left + around.width / 2 - w / 2, 12, innerWidth - w - 12) + scrollX + 'px';
  box.style.top = top + scrollY + 'px';
  tip.of?.removeAttribute('aria-describedby');
  tip.of = target;
  target.setAttribute('aria-describedby', 'tip');
}
function hideTip() {
  $('tip').hidden = true;
  tip.of?.removeAttribute('aria-describedby');
  tip.of = null;
}
for (const kind of ['pointerover', 'focusin', 'click']) {
  document.addEventListener(kind, event => {
    const target = explained(event.target);
    if (event.target === $('line') && kind !== 'focusin') showMoment(event.offsetX, event.offsetY);
    else if (target) showTip(target);
    else if (kind !== 'focusin' && !event.target.closest?.('#tip') && tip.of && tip.of !== document.activeElement) hideTip();
  });
}
$('line').addEventListener('pointermove', event => showMoment(event.offsetX, event.offsetY));
document.addEventListener('focusout', hideTip);
document.addEventListener('keydown', event => { if (event.key === 'Escape') hideTip(); });
