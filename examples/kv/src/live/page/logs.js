// 3: the logs. One axis, the distance from the newest entry, so that 10 entries and a million are both seen.
const PARTS = ['gone', 'applied', 'commit', 'dur', 'mem', 'bad'];
const logs = { rows: {}, mark: null };
const placeOf = distance => 100 * (1 - (Math.log10(1 + Math.max(0, distance)) / Math.log10(2.2e6)) ** .75);
const TICKS = [[1e6, '1M'], [1e5, '100k', 1], [1e4, '10k'], [1e3, '1k', 1], [100, '100'], [10, '10'], [0, 'newest']];

function buildLogs(state) {
  const rows = $('rows'), ids = idsOf(state);
  rows.innerHTML = `<svg class="hush" aria-hidden="true"><defs>
    <pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="1.2" height="5" fill="var(--ink3)"/></pattern>
    <pattern id="cross" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)"><rect width="5" height="5" fill="var(--bg)"/><rect width="2" height="5" fill="var(--bad)"/></pattern></defs></svg>`;
  logs.rows = {};
  const at = (element, row, column) => { element.style.gridRow = row; element.style.gridColumn = column; return element; };
  ids.forEach((id, i) => {
    at(el('div', 'who', rows, `${disc(id, isWitness(state, id))}<span>Node ${id}</span>`), i + 1, 1).dataset.node = id;
    const bar = at(el('div', '', rows, `<svg style="${colour(id)}" role="img" aria-label="Log of node ${id}">${
      PARTS.map(part => `<rect class="s-${part}" data-x="${part}" y="0" height="100%"/>`).join('')}<rect class="s-edge" y="0" height="100%"/></svg>`), i + 1, 2);
    const rects = [...bar.querySelectorAll('rect')];
    logs.rows[id] = { picture: bar.firstChild, parts: rects.slice(0, PARTS.length), edge: rects.at(-1), nums: at(el('div', 'nums', rows, '<button type="button" data-x="lag"></button>'), i + 1, 3).firstChild };
  });
  at(el('div', 'axis', rows, TICKS.map(([distance, label, odd]) =>
    `<span class="${odd ? 'odd' : ''}" style="left:${placeOf(distance)}%">${label}</span>`).join('')), ids.length + 1, 2);
  const line = at(el('div', 'mark-line', rows, '<u data-say="committed"></u>'), `1 / span ${ids.length + 1}`, 2);
  line.style.cssText += ';width:100%;position:relative';
  logs.mark = line.firstChild;
  const key = (x, label) => `<button type="button" data-x="${x}" style="--c:var(--ink2)"><svg viewBox="0 0 20 12" aria-hidden="true"><rect width="20" height="12" class="s-${x}"/></svg>${label}</button>`;
  $('logkey').innerHTML = key('gone', 'Compacted') + key('applied', 'Applied') + key('commit', 'Committed') + key('dur', 'Durable') + key('mem', 'Received') + key('bad', 'Conflict');
}

/// The parts of a log: from the first to one after the last index of each.
function partsOf(node, witness) {
  const end = node.conflict ? node.conflict[0] : node.last, within = index => Math.min(index, end);
  return {
    applied: witness ? [0, 0] : [node.first - 1, within(node.applied)],
    commit: [witness ? node.first - 1 : within(node.applied), within(node.commit)],
    dur: [within(node.commit), within(node.durable)], mem: [within(node.durable), within(node.last)],
    bad: node.conflict ? [end, node.last] : [0, 0],
  };
}

function drawLogs(state) {
  const ids = idsOf(state), top = Math.max(...ids.map(id => logOf(state.nodes[id]).last)), x = index => placeOf(top - index);
  for (const id of ids) {
    const node = { ...state.nodes[id], ...logOf(state.nodes[id]) }, row = logs.rows[id], parts = partsOf(node, isWitness(state, id));
    const width = (rect, a, b, least = 0) => {
      const left = x(a), wide = a === b ? 0 : Math.max(least, x(b) - left);
      put(rect, 'x', left.toFixed(2) + '%');
      put(rect, 'width', wide.toFixed(2) + '%');
    };
    put(row.parts[0], 'x', '0%');
    put(row.parts[0], 'width', (node.first > 1 ? Math.max(0, x(node.first - 1)) : 0).toFixed(2) + '%');
    PARTS.slice(1).forEach((part, i) => width(row.parts[i + 1], ...parts[part], part === 'bad' ? 2.2 : 0));
    width(row.edge, node.first - 1, Math.max(node.durable, node.first - 1));
    const lag = lagOf(state, id), joins = node.doing?.what === 'snapshot';
    const says = joins ? 'snapshot' : node.conflict ? `${count(node.conflict[1] - node.conflict[0])} conflict` : isSilent(node) ? 'no answer'
      : id === state.leader ? 'leads' : !state.leader ? '' : lag < 1e4 ? `${count(lag)} behind` : `${(lag / 1000).toFixed(1)}k behind`;
    set(row.nums, `<span>${joins ? '' : count(node.last)}</span><em>${text(says)}</em>`);
    put(row.picture, 'aria-label', `Log of node ${id}: entries ${count(node.first)} to ${count(node.last)}, committed to ${count(node.commit)}`);
  }
  const commit = Math.max(...ids.map(id => isSilent(state.nodes[id]) ? 0 : logOf(state.nodes[id]).commit));
  put(logs.mark, 'style', `transform:translateX(${placeOf(top - commit).toFixed(2)}%)`);
}
