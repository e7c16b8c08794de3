// 2: the cluster. Nodes stand on a ring, always in the same place; only what they are changes.
const cluster = { at: {}, radius: 46, nodes: {}, links: [], packets: [], flows: {} };
/// The length of the ring that is an election timer, in units of its picture.
const RING = 257.6;

function layoutCluster(state) {
  const stage = $('stage'), ids = idsOf(state), n = ids.length, u = page.unit, w = stage.clientWidth;
  const small = w < 560, mid = !small && w < 700 * u;
  cluster.radius = small ? 37 : 47 * u;
  cluster.at = {};
  const heights = small ? [180, 370, 370, 560] : [190 * u, (mid ? u > 1 ? 362 : 405 : 370) * u, (mid ? 405 : 360) * u, (mid ? (n > 6 ? 620 : 520) : 500) * u];
  const h = heights[n === 1 ? 0 : n < 4 ? 1 : n === 4 ? 2 : 3];
  put(stage, 'style', `--h:${h}px`);
  const side = small ? 58 : mid ? 80 * u : 200 * u, rx = Math.min(w / 2 - side, (n > 4 ? 245 : 215) * u);
  const top = n % 2 && n > 1 ? (small ? 96 : 114 * u) : (small ? 96 : 52 * u), low = small ? 98 : (mid ? 118 : 52) * u;
  const angles = ids.map((_, i) => -Math.PI / 2 + 2 * Math.PI * (i + (n % 2 ? 0 : .5)) / n);
  const ys = angles.map(Math.sin), y0 = Math.min(...ys), y1 = Math.max(...ys), xs = Math.max(.01, ...angles.map(a => Math.abs(Math.cos(a))));
  const push = (small || mid) && n > 4 ? 1.3 : 1;       // then the upper nodes stand above the lower ones, labels outside
  ids.forEach((id, i) => {
    const out = push > 1 && ys[i] > .5 ? .9 : push;
    const x = n === 1 ? w / 2 - (small ? 0 : 60 * u) : w / 2 + rx * clamp(out * Math.cos(angles[i]) / xs, -1, 1);
    const y = n === 1 ? (small ? h / 2 - 30 : h / 2) : n === 2 ? h / 2 : top + (h - top - low) * (ys[i] - y0) / (y1 - y0);
    const middle = Math.abs(x - w / 2) < 8;
    const says = small || mid ? (n > 1 && (middle || n > 4 && ys[i] < 0) ? 'n' : 's') : n === 1 ? 'e' : middle ? 'n' : x > w / 2 ? 'e' : 'w';
    cluster.at[id] = { x: Math.round(x), y: Math.round(y) };
    const node = cluster.nodes[id];
    node.style.left = x + 'px';
    node.style.top = y + 'px';
    node.parts.say.className = 'say ' + says;
  });
  for (const { a, b, lines, tag } of cluster.links) {
    const p = edge(a, b), q = edge(b, a);
    for (const line of lines) for (const [name, value] of [['x1', p.x], ['y1', p.y], ['x2', q.x], ['y2', q.y]]) put(line, name, value);
    put(tag, 'style', `left:${Math.round((p.x + q.x) / 2)}px;top:${Math.round((p.y + q.y) / 2)}px`);
  }
}

function buildCluster(state) {
  const stage = $('stage'), ids = idsOf(state);
  stage.innerHTML = '';
  Object.assign(cluster, { flows: {}, nodes: {}, packets: [] });
  play.packets = {};
  for (const id of ids) {
    const node = el('button', 'node', stage);
    const body = isWitness(state, id) ? '<rect class="body" x="20" y="20" width="56" height="56" rx="7"/>'
      : `<circle class="body" cx="48" cy="48" r="${isLearner(state, id) ? 27 : 31}"/>`;
    node.type = 'button';
    node.style.cssText = colour(id);
    node.dataset.node = id;
    node.innerHTML = `<svg viewBox="0 0 96 96" aria-hidden="true"><circle class="track" cx="48" cy="48" r="41"/>
      <circle class="ring" cx="48" cy="48" r="41" stroke-dasharray="${RING}"/>${body}<text class="no" x="48" y="51">${id}</text>
      <text class="s" x="48" y="67"></text><g class="b-down"><circle cx="77" cy="19" r="10"/><path d="M73 15l8 8M81 15l-8 8"/></g>
      <g class="b-warn"><path d="M77 8l11 19H66z"/><path d="M77 15v6M77 23.6v.6"/></g></svg><span class="say"></span>`;
    const part = name => node.querySelector(name);
    node.parts = { ring: part('.ring'), time: part('.s'), number: part('.no'), say: part('.say') };
    cluster.nodes[id] = node;
  }
  // After the nodes, as they are read; below them, as they are drawn.
  const pairs = ids.flatMap(a => ids.filter(b => a < b).map(b => [a, b]));
  stage.insertAdjacentHTML('beforeend', `<svg>${pairs.map(([a, b]) => `<g data-link="${a}>${b}" class="off" tabindex="0" role="button">
    <line class="reach"/><line class="link"/></g>`).join('')}</svg><div id="flow" aria-hidden="true"></div>`);
  const groups = stage.querySelectorAll('g[data-link]');
  cluster.links = pairs.map(([a, b], i) => ({ a, b, group: groups[i], lines: [...groups[i].children], tag: el('span', 'tag', stage, '<span></span>') }));
  const key = (x, picture, label) => `<button type="button" data-x="${x}"><svg viewBox="0 0 20 12" aria-hidden="true" fill="none"
    stroke="currentColor" stroke-width="1.6">${picture}</svg>${label}</button>`;
  $('key').innerHTML = key('leader', '<circle cx="10" cy="6" r="6" fill="currentColor"/>', 'Leader')
    + key('follower', '<circle cx="10" cy="6" r="3.4"/><path d="M10 -.6a6.6 6.6 0 1 1-6.6 6.6"/>', 'Follower, with election timer')
    + key('candidate', '<circle cx="10" cy="6" r="5.6" stroke-dasharray="3 2"/>', 'Candidate')
    + key('append', '<rect x="1" y="3" width="6" height="6" fill="currentColor"/><circle cx="15" cy="6" r="3.4"/>', 'Append, heartbeat');
  const { heartbeat_ms, election_ms: [least, most] } = state.timing;
  set($('pace'), ids.length === 1 ? 'No peers, so no heartbeats and no elections'
    : `<button type="button" class="fig" data-x="pace">Heartbeats every ${Number(heartbeat_ms)} ms, election timeouts from ${Number(least)} to ${Number(most)} ms</button>`);
  $('name').textContent = 'Cluster ' + state.cluster;
}

/// The time that is left on an election timer: it runs on between two messages of the server.
const leftOf = node => Math.max(0, node.timer.left_ms - (page.live && !source.lost ? Math.min(1000, performance.now() - page.heard) * paceOf(page.state) : 0));

function whatOf(state, id) {
  const node = state.nodes[id], lag = lagOf(state, id), { doing } = node;
  if (isSilent(node)) return node.seen ? `for ${duration(node.seen.age_ms)}` : 'never heard';
  if (state.playground?.traps[id]) return state.playground.traps[id];
  if (conflictsOf(state, id)) return `${count(conflictsOf(state, id))} in conflict`;
  if (isCampaigning(node)) return `${node.votes.yes.length} of ${majorityOf(state)} ${node.votes.kind === 'vote' ? 'votes' : 'pre-votes'}${node.votes.no.length ? `, ${node.votes.no.length} no` : ''}`;
  if (doing?.what === 'snapshot') return `snapshot${doing.part == null ? '' : ` ${Math.round(doing.part * 100)} %`}`;
  if (doing?.what === 'recovery') return 'reads its log';
  if (doing?.what === 'repair') return node.conflict ? `${count(node.conflict[1] - node.conflict[0])} entries conflict` : 'repairs its log';
  if (isSlow(node)) return `disk slow, ${Math.round(node.sync_ms)} ms`;
  if (state.leader && id !== state.leader && linkOf(state, state.leader, id)?.state === 'cut') return 'hears no leader';
  if (doing?.what === 'catch-up') return `${count(doing.entries ?? lag)} behind`;
  if (lag > 100) return `${count(lag)} behind`;
  if (idsOf(state).length === 1) return 'only node';
  return state.leader ? 'up to date' : 'waits';
}

function drawNode(state, id) {
  const node = state.nodes[id], button = cluster.nodes[id], up = !isSilent(node), leads = id === state.leader;
  const { kind } = node.votes ?? {};
  const role = kind ? (kind === 'vote' ? 'candidate' : 'pre_candidate') : isWitness(state, id) && node.role === 'follower' ? 'witness' : isLearner(state, id) && node.role === 'follower' ? 'learner' : node.role ?? 'down';
  const care = up && (isSlow(node) || state.leader && linkOf(state, state.leader, id)?.state === 'cut');
  const cls = `node ${up ? role : 'down'}${care ? ' care' : ''}`;
  if (button.className !== cls) button.className = cls;
  const timed = up && !leads && node.timer, left = timed ? leftOf(node) : 0, { ring, time, number, say } = button.parts;
  // In steps of an eightieth: finer ones are not seen, and each costs a paint.
  const part = leads ? 1 : timed ? Math.round(80 * clamp(left / node.timer.of_ms)) / 80 : 0;
  put(ring, 'stroke-dashoffset', (RING * (1 - part)).toFixed(1));
  spell(time, timed ? (left / 1000).toFixed(1) + ' s' : '');
  put(number, 'y', timed ? 51 : 56);
  const word = up ? ROLES[role] ?? role : 'No answer';
  set(say, `<span class="hush">Node ${id}:</span><b>${text(word)}</b>${
    node.term == null ? '' : `<i>term ${Number(node.term)}</i><i>${node.vote ? 'voted ' + Number(node.vote) : 'no vote'}</i>`}<br>${text(whatOf(state, id))}`);
}

/// The ballots that are on their way at the moment shown.
const ballotsAt = at => record.ballots.filter(ballot => timesOf(ballot)[0] <= at && at < timesOf(ballot)[1]);
const timesOf = ballot => page.live ? [ballot.at, ballot.until] : [ballot.was, ballot.gone];

/// Numbers on links change once a second: no eye reads them sooner.
function drawCluster(state, all) {
  const ids = idsOf(state), { writes_per_s } = state, ballots = ballotsAt(page.at);
  for (const id of ids) drawNode(state, id);
  const isBusy = (a, b) => ballots.some(ballot => (ballot.from === a && ballot.to === b) || (ballot.from === b && ballot.to === a)) || isFlown(state, a, b);
  for (const { a, b, group, lines, tag } of cluster.links) {
    const link = linkOf(state, a, b), hub = state.leader === a || state.leader === b || isBusy(a, b);
    // A leader's links are strong. Others appear when they are cut, carry ballots, or are few.
    const isShown = ids.length <= 3 || isBusy(a, b) || link && (!state.leader || hub || link.state === 'cut');
    const dead = [a, b].some(id => isSilent(state.nodes[id])), kind = dead ? 'quiet' : link?.state ?? 'idle';
    put(group, 'class', isShown ? '' : 'off');
    hide(tag, !isShown);
    if (!isShown) continue;
    put(group, 'data-kind', kind);
    put(group, 'aria-label', `${(LINKS[kind] ?? LINKS.up)[0]} between nodes ${a} and ${b}`);
    put(lines[1], 'class', `link ${hub ? 'hub' : ''} ${kind}`);
    const joins = [a, b].some(id => state.nodes[id].doing?.what === 'snapshot' && isLearner(state, id));
    const says = kind === 'cut' ? '✕ cut' : kind === 'quiet' || !hub ? '' : joins ? 'snapshot' : kind === 'slow' ? `slow, ${link.rtt_ms?.toFixed(0)} ms`
      : state.playground || ids.length > 5 || ballots.length || link?.in_flight == null ? '' : `${link.in_flight} in flight`;
    if (!all && says && tag.firstChild.was && tag.kind === kind) continue;
    tag.kind = kind;
    put(tag, 'class', 'tag' + (kind === 'cut' ? ' bad' : ''));
    spell(tag.firstChild, says);
    hide(tag, !says);
  }
  if (state.playground) return drawFlights(state);
  drawFlow(state, ids, isBusy, writes_per_s > 0);
  drawBallots(state, ballots, ids.length);
}

/// Appends and heartbeats: animations without script. Those of a link are made anew only when the link changes.
function drawFlow(state, ids, isBusy, writes) {
  const lead = state.leader, many = ids.length > 5 ? 2 : 3, beat = Math.max(500, state.timing.heartbeat_ms) / 1000, pace = page.replay ? page.slower : 1;
  for (const id of ids) {
    const link = state.links[`${lead}>${id}`], node = state.nodes[id], packets = [];
    if (lead && id !== lead && link && !isSilent(node) && link.state !== 'quiet' && !isBusy(lead, id)) {
      const reach = link.state === 'cut' ? .44 : 1, joins = node.doing?.what === 'snapshot';
      if (writes || joins) for (let i = 0; i < many; i += 1) {
        packets.push([joins ? 'piece' : 'append', lead, id, reach, 1.1, i / many + id * .13]);
        if (reach === 1 && many > 2 && !joins) packets.push(['ack', id, lead, 1, 1.1, i / many + id * .13 + .17]);
      }
      packets.push(['beat', lead, id, reach, beat, 0]);
    }
    const flow = cluster.flows[id] ||= el('div', '', $('flow'));
    const from = cluster.at[lead], to = cluster.at[id], shape = packets.join() + (packets.length ? [from.x, from.y, to.x, to.y, cluster.radius, pace] : '');
    if (shape === flow.shape) continue;
    flow.shape = shape;
    flow.innerHTML = packets.map(packet => packetOf(packet, pace)).join('');
  }
}

function packetOf([cls, a, b, reach, seconds, offset], pace) {
  const A = edge(a, b), B = edge(b, a), n = cls === 'ack' ? 5 / A.d : 0, dx = (B.y - A.y) * n, dy = (A.x - B.x) * n;
  const place = (x, y) => `${x.toFixed(1)}px,${y.toFixed(1)}px`;
  return `<span class="pkt ${cls}" style="--c:var(--n${(a - 1) % 7 + 1});--d:${seconds * pace}s;--w:-${(offset % 1 * seconds * pace).toFixed(2)}s;--a:${
    place(A.x + dx, A.y + dy)};--b:${place(A.x + (B.x - A.x) * reach + dx, A.y + (B.y - A.y) * reach + dy)}"></span>`;
}

/// All ballots are drawn, each on its way between two nodes.
function drawBallots(state, ballots, nodes) {
  const words = { pre_vote: 'Pre-vote?', vote: 'Vote?', yes: 'Yes', no: 'No' };
  ballots.filter(ballot => cluster.nodes[ballot.from] && cluster.nodes[ballot.to]).forEach((ballot, i) => {
    const packet = cluster.packets[i] ||= el('span', 'pkt', null), { from, to } = ballot;
    if (!packet.parentNode) $('stage').insertBefore(packet, $('flow').nextSibling);
    const word = cluster.radius < 40 && nodes > 4 ? { yes: '✓', no: '✕' }[ballot.answer] ?? '?' : words[ballot.answer ?? ballot.kind];
    const A = edge(from, to), B = edge(to, from), reach = isSilent(state.nodes[to]) ? .55 : 1;
    const margin = Math.min(.5, (word.length > 3 ? 38 : 20) * page.unit / (A.d - 2 * cluster.radius));
    const [from_ms, to_ms] = timesOf(ballot), part = margin + (1 - 2 * margin) * clamp((page.at - from_ms) / (to_ms - from_ms)) * reach;
    const isNew = packet.ballot !== ballot;
    put(packet, 'class', `pkt ballot ${ballot.answer ?? ''}`);
    if (isNew) packet.style.transition = 'none';
    else if (packet.style.transition) packet.style.transition = '';
    packet.ballot = ballot;
    hide(packet, false);
    packet.style.setProperty('--c', `var(--n${(from - 1) % 7 + 1})`);
    packet.style.transform = `translate(${(A.x + (B.x - A.x) * part).toFixed(1)}px,${(A.y + (B.y - A.y) * part).toFixed(1)}px)`;
    set(packet, `<span>${word}</span>`);
  });
  for (let i = ballots.length; i < cluster.packets.length; i += 1) {
    hide(cluster.packets[i], true);
    cluster.packets[i].ballot = null;
  }
}

/// The point where the line from a to b leaves a's disc, and the distance of the two nodes.
function edge(a, b) {
  const p = cluster.at[a], q = cluster.at[b], d = Math.max(1, Math.hypot(q.x - p.x, q.y - p.y));
  return { x: +(p.x + (q.x - p.x) / d * cluster.radius).toFixed(1), y: +(p.y + (q.y - p.y) / d * cluster.radius).toFixed(1), d };
}
