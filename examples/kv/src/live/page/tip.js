// Explanations: one tip, by hover, focus and tap. Escape closes it.
const tip = { of: null };
const TIPPED = '[data-x],[data-node],[data-link]';

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

function showTip(target) {
  const html = tipOf(target), box = $('tip');
  if (!html) return;
  box.innerHTML = html;
  box.hidden = false;
  const around = target.getBoundingClientRect(), w = box.offsetWidth, h = box.offsetHeight;
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
    const target = event.target.closest?.(TIPPED);
    if (target) showTip(target);
    else if (kind !== 'focusin' && !event.target.closest?.('#tip') && tip.of && tip.of !== document.activeElement) hideTip();
  });
}
document.addEventListener('focusout', hideTip);
document.addEventListener('keydown', event => { if (event.key === 'Escape') hideTip(); });
