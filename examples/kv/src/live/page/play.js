// 8: the playground, a simulated cluster alone: its time stands, goes in steps and goes back, and each message can be lost.
const SPEEDS = [[.05, '1/20'], [.1, '1/10'], [.25, '1/4'], [.5, '1/2'], [1, '1'], [2, '2'], [5, '5']];
const NODE_DEEDS = [['write', 'Write'], ['timeout', 'Time out'], ['crash', 'Crash'], ['crash_before_write', 'Crash before its next write'],
  ['crash_after_write', 'Crash after its next write'], ['start', 'Start']];
const LINK_DEEDS = [['cut', 'Cut'], ['heal', 'Heal']];
const MESSAGE_DEEDS = [['deliver', 'Deliver'], ['drop', 'Drop'], ['delay', 'Delay 1 s']];
/// Messages that are drawn as a word; others are dots, as appends and heartbeats are on a real cluster.
const WORDED = ['pre_vote', 'vote', 'yes', 'no', 'append', 'probe', 'reject'];
const DOTS = { beat: 'beat', beat_ack: 'ack', ack: 'ack' };
const play = { packets: {}, rows: {}, boxes: {} };

/// How fast the cluster's time passes: that of real nodes as ours does.
const paceOf = state => !state.playground ? 1 : state.playground.is_running ? state.playground.speed : 0;
/// The simulated time at the moment shown, in milliseconds.
const simulatedAt = state => !page.live ? page.at - record.since
  : state.now_ms + (source.lost ? 0 : Math.min(500, performance.now() - page.heard) * paceOf(state));
const flightsOf = state => Object.entries(state.playground.flights).map(([id, flight]) => ({ id, ...flight })).sort((a, b) => a.due_ms - b.due_ms);
const isFlown = (state, a, b) => Object.values(state.playground?.flights ?? {}).some(({ from, to }) => (from === a && to === b) || (from === b && to === a));

/// The entries of a node that differ from the leader's.
const conflictsOf = (state, id) => {
  const log = state.playground?.logs[id];
  return log?.conflict == null ? 0 : log.first + log.terms.length - log.conflict;
};

async function ask(what) {
  const asked = await fetch('/live/play', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(what) }).catch(() => null);
  if (asked?.ok) return set($('refused'), '');
  const why = await asked?.json().catch(() => null);
  set($('refused'), text(why?.message ?? why?.error?.message ?? 'The playground does not answer.'));
}
const control = (parent, label, onclick, cls = 'btn') => {
  const button = el('button', cls, parent, text(label));
  button.type = 'button';
  button.onclick = onclick;
  return button;
};

function buildPlay(state) {
  const { playground } = state, scene = $('scene'), box = $('play');
  for (const part of [scene, box]) hide(part, !playground);
  hide($('path'), Boolean(playground));
  if (!playground) return;
  Object.values(play.packets).forEach(packet => packet.remove());
  Object.assign(play, { packets: {}, rows: {} });
  scene.innerHTML = '<div class="scenes" role="group" aria-label="Scenarios"></div><p id="scene-says"></p><p id="scene-now" role="status"></p>';
  for (const { name, title } of playground.scenarios) {
    control(scene.firstChild, title, () => ask({ command: 'scenario', name })).dataset.scenario = name;
  }
  box.innerHTML = `<div role="group" aria-label="Time"><span id="steps"></span><label for="speed">Speed</label> <select id="speed" class="btn">${
    SPEEDS.map(([of, label]) => `<option value="${of}">${label}</option>`).join('')}</select> <span id="moves"></span></div>
    <p id="last" role="status"></p><p id="next"></p>
    <div class="deeds" role="group" aria-label="Deeds"><label for="of">Do to</label> <select id="of" class="btn"></select><span id="deeds"></span></div>
    <p id="refused" role="alert"></p>
    <h3 id="h-flights">Messages on their way</h3><p id="flights-note"></p><ul id="flights" aria-labelledby="h-flights"></ul>`;
  play.run = control($('steps'), 'Pause', () => ask({ command: page.state.playground.is_running ? 'pause' : 'run' }));
  play.back = control($('steps'), 'Step back', () => ask({ command: 'back' }));
  play.step = control($('steps'), 'Step', () => ask({ command: 'step' }));
  $('speed').onchange = () => ask({ command: 'speed', of: Number($('speed').value) });
  const ids = idsOf(state), links = ids.flatMap(a => ids.filter(b => a < b).map(b => [a, b]));
  $('of').innerHTML = ids.map(id => `<option value="${id}">Node ${id}</option>`).join('')
    + links.map(([a, b]) => `<option value="${a}-${b}">Link ${a} to ${b}</option>`).join('');
  const offer = () => {
    $('deeds').innerHTML = '';
    const [a, b] = $('of').value.split('-').map(Number);
    for (const [deed, label] of b ? LINK_DEEDS : NODE_DEEDS) control($('deeds'), label, () => ask(b ? { deed, from: a, to: b } : { deed, node: a }));
  };
  $('of').onchange = offer;
  offer();
}

function drawPlay(state) {
  const { playground } = state, { scenario } = playground ?? {};
  hide($('pause'), Boolean(playground) && page.live);
  if (!playground) return;
  for (const button of document.querySelectorAll('[data-scenario]')) put(button, 'aria-pressed', button.dataset.scenario === scenario?.name);
  set($('scene-says'), scenario ? `${text(scenario.says)} <em>${text(source_of(scenario.ref))}</em>` : '');
  set($('scene-now'), scenario?.stage ? `<b>${scenario.is_over ? 'At the end:' : 'Now:'}</b> ${text(scenario.stage)}` : '');
  set(play.run, playground.is_running ? 'Pause' : 'Run');
  play.back.disabled = !playground.has_past;
  if (document.activeElement !== $('speed')) $('speed').value = playground.speed;
  set($('moves'), `${duration(simulatedAt(state))} · move ${count(playground.moves)}`);
  // Each is read out when it changes: only steps are.
  const stands = !playground.is_running;
  set($('last'), playground.broken ? `<b>A property of Raft is violated:</b> ${text(playground.broken)}` : stands && playground.last ? `<b>Last:</b> ${text(playground.last)}` : '');
  set($('next'), stands && playground.next ? `<b>Next:</b> ${text(playground.next)}` : '');
  listFlights(stands && page.live ? flightsOf(state) : [], stands);
}

/// One row for each message, kept while it is on its way: a row that is made anew would lose the focus.
function listFlights(flights, stands) {
  const list = $('flights'), now = page.state.now_ms;
  set($('flights-note'), !stands ? 'Pause to deliver, drop or delay them one by one.' : flights.length ? '' : 'None.');
  for (const [id, row] of Object.entries(play.rows)) {
    if (flights.some(flight => flight.id === id)) continue;
    const next = row.contains(document.activeElement) && (row.nextSibling ?? row.previousSibling);
    if (next) next.querySelector(`[data-deed="${document.activeElement.dataset.deed}"]`).focus();
    else if (row.contains(document.activeElement)) play.step.focus();
    row.remove();
    delete play.rows[id];
  }
  flights.forEach((flight, i) => {
    let row = play.rows[flight.id];
    if (!row) {
      row = play.rows[flight.id] = el('li', '', null, `${disc(flight.from)}<span class="to" aria-hidden="true">→</span>${disc(flight.to)}<span class="says"></span><span class="due"></span>`);
      row.says = row.querySelector('.says');
      row.due = row.querySelector('.due');
      for (const [deed, label] of MESSAGE_DEEDS) {
        const button = control(row, label, () => ask({ deed, message: Number(flight.id) }));
        button.dataset.deed = deed;
        button.setAttribute('aria-label', `${label}: ${flight.says}`);
      }
    }
    set(row.says, text(flight.says));
    set(row.due, `in ${Math.max(0, (flight.due_ms - now) / 1000).toFixed(1)} s`);
    if (list.children[i] !== row) list.insertBefore(row, list.children[i] ?? null);
  });
}

/// Each message, where it is at the moment shown.
function drawFlights(state) {
  const now = simulatedAt(state), flights = flightsOf(state).filter(({ from, to }) => cluster.nodes[from] && cluster.nodes[to]);
  for (const [id, packet] of Object.entries(play.packets)) {
    if (flights.some(flight => flight.id === id)) continue;
    packet.remove();
    delete play.packets[id];
  }
  for (const { id, from, to, kind, word, sent_ms, due_ms } of flights) {
    const A = edge(from, to), B = edge(to, from), worded = WORDED.includes(kind);
    let packet = play.packets[id];
    if (!packet) {
      packet = play.packets[id] = el('span', `pkt ${worded ? `ballot ${kind}` : DOTS[kind]}`, null, worded ? `<span>${text(word)}</span>` : '');
      packet.style.setProperty('--c', `var(--n${(from - 1) % 7 + 1})`);
      $('stage').insertBefore(packet, $('flow').nextSibling);
    }
    const reach = state.playground.cuts.includes(`${from}>${to}`) ? .44 : isSilent(state.nodes[to]) ? .8 : 1;
    const margin = worded ? Math.min(.4, (word.length > 3 ? 34 : 18) * page.unit / Math.max(1, A.d - 2 * cluster.radius)) : 0;
    const part = margin + (1 - 2 * margin) * clamp((now - sent_ms) / Math.max(1, due_ms - sent_ms)) * reach, aside = 7 / A.d;
    packet.style.transform = `translate(${(A.x + (B.x - A.x) * part - (B.y - A.y) * aside).toFixed(1)}px,${
      (A.y + (B.y - A.y) * part + (B.x - A.x) * aside).toFixed(1)}px)`;
  }
}

/// The logs as the paper draws them: a box for each entry, with its term.
function buildBoxes(state) {
  const rows = $('rows');
  rows.innerHTML = '';
  play.boxes = {};
  const line = (name, i) => [0, 1, 2].map(column => {
    const cell = el('div', ['who', 'boxes', 'nums'][column], rows, column ? '' : name);
    Object.assign(cell.style, { gridRow: i + 1, gridColumn: column + 1 });
    return cell;
  });
  play.indexes = line('', 0)[1];
  put(play.indexes, 'aria-hidden', true);
  idsOf(state).forEach((id, i) => { play.boxes[id] = line(`${disc(id)}<span>Node ${id}</span>`, i + 1); });
  const key = (x, cls, label) => `<button type="button" data-x="${x}"><i class="box ${cls}" style="${colour(2)}" aria-hidden="true">2</i>${label}</button>`;
  $('logkey').innerHTML = key('commit', 'sure', 'Committed') + key('dur', 'dur', 'Durable') + key('mem', 'mem', 'Received') + key('bad', 'odd', 'Conflict');
  set(document.querySelector('.logs .note'), 'Each box is an entry: its term in it, its index above');
}

function drawBoxes(state) {
  const ids = idsOf(state), { logs: of } = state.playground, end = log => log.first + log.terms.length - 1;
  const top = Math.max(1, ...ids.map(id => end(of[id]))), from = Math.max(1, top - (page.wide < 560 ? 11 : 23));
  const indexes = Array.from({ length: top - from + 1 }, (_, i) => from + i);
  set(play.indexes, indexes.map(index => `<i class="box index">${index}</i>`).join(''));
  for (const id of ids) {
    const log = of[id], node = state.nodes[id], [, boxes, nums] = play.boxes[id];
    const boxOf = index => {
      const term = log.terms[index - log.first];
      if (term == null) return index < log.first ? '<i class="box gone"></i>' : '';
      const odd = log.conflict != null && index >= log.conflict;
      const cls = odd ? 'odd' : index <= (node.commit ?? 0) ? 'sure' : index <= (node.durable ?? 0) ? 'dur' : 'mem';
      return `<i class="box ${cls}" style="${colour(Number(term))}">${Number(term)}</i>`;
    };
    set(boxes, `<span aria-hidden="true">${indexes.map(boxOf).join('')}</span><span class="hush">${
      log.terms.length ? `Entries ${count(log.first)} to ${count(end(log))}, of the terms ${log.terms.map(Number).join(', ')}` : 'No entries'}${
      log.conflict == null ? '' : `; those from ${count(log.conflict)} on conflict with the leader’s`}</span>`);
    const odd = conflictsOf(state, id);
    set(nums, `<em>${isSilent(node) ? 'down' : odd ? `${count(odd)} conflict` : id === state.leader ? 'leads' : `committed ${count(node.commit)}`}</em>`);
  }
}
