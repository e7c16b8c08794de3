// The clock of the page: the moment that is shown, live or not, and when it is drawn.
const page = {
  state: null,     // the state at the moment shown
  at: 0,           // that moment, by the wall clock of the node that serves
  live: true,
  replay: null,    // the moment at which a replay ends
  slower: 20,      // a replay's speed is one in so many
  heard: 0,        // when the newest state arrived, by this machine's monotonic clock
  unit: 1, wide: 800, colours: {},   // read on resize and change of theme alone: reading costs a layout
};
const COLOURS = ['bg', 'ink', 'ink2', 'ink3', 'line', 'track', 'bad', 'on', 'n1', 'n2', 'n3', 'n4', 'n5', 'n6', 'n7'];
const still = matchMedia('(prefers-reduced-motion: reduce)');

function measure() {
  const css = getComputedStyle(document.documentElement);
  page.unit = parseFloat(css.fontSize) / 16;
  page.wide = $('line').clientWidth;
  for (const name of COLOURS) page.colours[name] = css.getPropertyValue('--' + name);
}

/// The members and their kinds: when they change, the page is built anew.
const shapeOf = state => JSON.stringify([idsOf(state), state.config.voters, state.config.learners, state.config.witness, state.demo, state.timing, state.cluster, Boolean(state.playground)]);
let shape = '';
function build(state) {
  if (shape === shapeOf(state)) return;
  shape = shapeOf(state);
  buildCluster(state); (state.playground ? buildBoxes : buildLogs)(state); buildWrite(state); buildTry(state); buildPlay(state);
  layoutCluster(state);
}

/// Draws the moment. Facts that are read in peace change once a second.
const drawn = { slow: 0, time: 0 };
function draw(all = true) {
  const { state } = page, now = performance.now();
  if (!state) return;
  build(state);
  // While simulated time stands, each change is a step, and all of it is shown at once.
  all ||= state.playground?.is_running === false;
  document.documentElement.classList.toggle('held', !page.live);
  const slow = all || now - drawn.slow >= 1000;
  drawState(state, slow);
  drawCluster(state, slow);
  drawPlay(state);
  if (all || now - drawn.time >= (isEvent() ? 200 : 1000)) { drawn.time = now; drawTimeline(state); (state.playground ? drawBoxes : drawLogs)(state); }
  if (!slow) return;
  drawn.slow = now;
  drawWrite(state);
  const last = record.events.findLast(event => event.at <= page.at);
  set($('when'), page.live ? '' : 'Arrow keys: event to event. End: live');
  put($('line'), 'aria-valuemin', 0);
  put($('line'), 'aria-valuemax', Math.round((record.newest - record.oldest) / 1000));
  put($('line'), 'aria-valuenow', Math.round((page.at - record.oldest) / 1000));
  put($('line'), 'aria-valuetext', `${clock(page.at)}${last ? ': ' + last.text : ''}`);
}
const isEvent = () => Boolean(page.state.playground) || !page.state.leader || ballotsAt(page.at).length > 0 || idsOf(page.state).some(id => isCampaigning(page.state.nodes[id]));

function seek(at) {
  record.order();
  Object.assign(page, { live: false, at: clamp(at, record.oldest, record.newest) });
  page.state = record.stateAt(page.at);
  retell();
  draw();
  button();
}
function goLive() {
  Object.assign(page, { live: true, replay: null, at: record.newest, state: record.last() });
  retell();
  draw();
  button();
}
/// Shows an election again, slowly: from the silence before it to its first commit.
function replay(event) {
  const began = record.spans.findLast(span => span.what === 'election' && span.from <= event.at + 1000)?.from ?? event.at - 500;
  page.replay = Math.min(event.at + 700, record.newest);
  page.slower = still.matches || page.state.playground ? 5 : 20;
  page.clocked = performance.now();
  run();
  seek(Math.min(began, event.at) - 200);
}
function button() {
  const paused = !page.live;
  put($('pause'), 'aria-pressed', paused);
  $('pause').textContent = paused ? 'Live' : 'Pause';
}

let asked = false;
function redraw(all = false) {
  if (document.hidden || asked && !all) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; draw(all); });
}
source.listeners = {
  news(isNew) {
    const first = !page.state, from = page.state?.served_by;
    page.heard = performance.now();
    if (!page.live) return;
    const moves = record.ballots.at(-1)?.until > page.at;
    Object.assign(page, { state: record.last(), at: record.newest });
    if (moves || page.state.playground) run();
    if (first) { $('main').classList.remove('waits'); measure(); buildZoom(); build(page.state); measure(); retell(); }
    else if (isNew) retell();
    if (!first && from !== page.state.served_by) note(page.state, `This page moved from node ${from} to node ${page.state.served_by}.`,
      'The configuration names the HTTP address of each member. The page keeps the list, and tries the next one when a connection ends.');
    // Ten times a second when something happens, four when nothing does.
    if (first || isNew) redraw(true);
    else if (isEvent() || performance.now() - page.drawnAt >= 240) { page.drawnAt = performance.now(); redraw(); }
  },
  missed({ count: lost, node }) {
    note(page.state, `${count(lost)} events of ${node ? `node ${node}` : 'other nodes'} did not arrive.`, 'Each node keeps its newest events; a page that reads too slowly, or a broken link, misses some.');
  },
  event(event) { if (page.live) { page.at = Math.max(page.at, record.newest); tell(event); redraw(); } },
  lost() { if (page.state && page.live) redraw(true); },
  denied() { $('login').hidden = false; $('token').focus(); },
};
page.drawnAt = 0;

// Ballots move between two messages of the server, and a replay without any. Nothing ticks without these.
let ticking = 0;
function tick() {
  const now = performance.now();
  if (page.replay) {
    page.at += (now - page.clocked) / page.slower;
    page.clocked = now;
    if (page.at >= page.replay) return goLive();
    page.state = record.stateAt(page.at);
    return draw(false);
  }
  if (page.live && page.state.playground) return page.state.playground.is_running && redraw();
  if (!page.live || document.hidden || !(record.ballots.at(-1)?.until > page.at)) {
    clearInterval(ticking);
    ticking = 0;
  } else if (ballotsAt(page.at).length) {
    page.at = Math.max(page.at, Math.min(record.newest + (now - page.heard), page.at + 100));
    redraw();
  }
}
function run() { ticking ||= setInterval(tick, 100); }
// A hidden page goes on with its record, and draws nothing.
document.addEventListener('visibilitychange', () => { if (!document.hidden && page.state) { run(); redraw(true); } });

$('pause').onclick = () => page.live ? seek(page.at) : goLive();
$('line').onpointerdown = event => { page.replay = null; seek(timeline.at(event.offsetX)); };
$('line').onkeydown = event => {
  const stops = record.events.map(one => one.at);
  const to = { ArrowLeft: () => stops.findLast(at => at < page.at - 10), ArrowRight: () => stops.find(at => at > page.at + 10), Home: () => record.oldest }[event.key];
  if (event.key === 'End') goLive();
  else if (to) { page.replay = null; const at = to(); if (at != null) seek(at); showMoment(timeline.x(page.at), 0); }
  else return;
  event.preventDefault();
};
$('login').onsubmit = event => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, $('token').value.trim());
  $('login').hidden = true;
  source.run();
};
const query = new URLSearchParams(location.search);
function paint(dark) {
  document.documentElement.dataset.theme = dark ? 'dark' : 'light';
  measure();
  $('theme').textContent = dark ? 'Light' : 'Dark';
  draw();
}
$('theme').onclick = () => paint(document.documentElement.dataset.theme !== 'dark');
const scheme = matchMedia('(prefers-color-scheme: dark)');
scheme.addEventListener('change', () => paint(scheme.matches));
paint(query.has('theme') ? query.get('theme') === 'dark' : scheme.matches);
new ResizeObserver(() => { if (page.state) { measure(); layoutCluster(page.state); draw(); } }).observe($('stage'));
source.run();
