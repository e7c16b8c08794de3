// The connection to a node, and the record of what it said: the state at each moment of the last 15 minutes.

const KEPT_MS = 15 * 60_000;
/// A full state is kept after this many patches, so that any moment is a few patches away.
const PATCHES_MAX = 100;
/// A node that says nothing for so long is left for another one. It says something every 5 s.
const SILENCE_MS = 7000;
/// A ballot that took a millisecond is drawn for as long as an eye needs.
const BALLOT_MS = 450;
/// The same where the past is shown: 20 times slower.
const BALLOT_PAST_MS = 30;
const TOKEN = 'quorate-token';

/// Applies a JSON merge patch (RFC 7396). Objects of the patch are copied, so that it can be applied again.
function merge(into, patch) {
  if (patch === null || typeof patch !== 'object' || Array.isArray(patch)) return patch;
  const result = into && typeof into === 'object' && !Array.isArray(into) ? into : {};
  for (const name in patch) {
    if (patch[name] === null) delete result[name];
    else result[name] = merge(result[name], patch[name]);
  }
  return result;
}

/// The record. Times are of the wall clock of the node that serves, in milliseconds.
const record = {
  frames: [],       // [{at, full} or {at, patch}]
  events: [],       // oldest first
  ballots: [],      // {from, to, kind, answer?, sent, at, until}, and as `order` finds them {was, gone}
  spans: [],        // {node, from, to: null while it lasts, what, term?}
  series: [],       // {at, writes, p99}: one each second
  newest: 0,

  snapshot(state) {
    if (state.playground) this.reset();
    const at = Date.parse(state.wall), since = at - state.now_ms;
    const { events = [], history, ...facts } = state;
    this.since = since;
    const known = new Set(this.events.map(event => event.id));
    this.events.push(...events.filter(event => !known.has(event.id)).map(event => this.timed(event)));
    this.events.sort((a, b) => a.at - b.at);
    if (!this.frames.length && history) {
      // Between two spans, a node is a follower: that is drawn without one.
      this.spans = history.spans.filter(({ what }) => what !== 'follower' && what !== 'learner')
        .map(({ node, from_ms, to_ms, what, term }) => ({ node, from: since + from_ms, to: since + to_ms, what, term }));
      this.series = history.series.map(({ at_ms, writes_per_s, p99_ms }) => ({ at: since + at_ms, writes: writes_per_s, p99: p99_ms }));
      this.begun = this.series[0]?.at;
    }
    this.frame(at, { full: facts });
  },
  /// Simulated time may have gone back, and then has another future.
  reset() {
    Object.assign(this, { frames: [], events: [], ballots: [], spans: [], series: [], newest: 0, begun: undefined, patches: 0 });
  },
  delta(patch) {
    const before = this.last();
    const at = patch.wall ? Date.parse(patch.wall) : patch.now_ms ? this.newest + patch.now_ms - before.now_ms : Date.now();
    this.frame(at, { patch });
  },
  /// By the clock of the node that serves: those of machines differ.
  timed(event) {
    return { ...event, at: this.since + event.at_ms };
  },
  event(event) {
    const one = this.timed(event);
    this.events.push(one);
    return one;
  },
  ballot(ballot) {
    // The playground draws each message where it is.
    if (this.current?.playground) return;
    const isPair = (question, answer) => question.kind === answer.kind && question.from === answer.to && question.to === answer.from;
    // An answer leaves once its question has arrived, and may be told first.
    const question = ballot.answer && this.ballots.findLast(one => !one.answer && isPair(one, ballot));
    const early = !ballot.answer && this.ballots.findLast(one => one.answer && isPair(ballot, one) && Math.abs(one.sent_ms - ballot.sent_ms) < 2000);
    const sent = this.since + ballot.sent_ms, at = Math.max(this.newest - sent > 2000 ? sent : this.newest, question?.until ?? 0);
    const one = { ...ballot, sent, at, until: at + BALLOT_MS };
    if (early?.at < one.until) Object.assign(early, { at: one.until, until: one.until + BALLOT_MS });
    this.ballots.push(one);
  },
  /// Finds the times at which ballots are drawn in the past: those at which they were sent, but one phase of an election after
  /// the other, each for as long as an eye needs in a replay.
  order() {
    const rounds = [], phase = one => 2 * (one.kind === 'vote') + Boolean(one.answer);
    for (const one of this.ballots) {
      const candidate = one.answer ? one.to : one.from;
      let round = rounds.findLast(other => other.candidate === candidate);
      if (!round || one.sent - round.began > 2000) rounds.push(round = { candidate, began: one.sent, phases: [[], [], [], []] });
      round.phases[phase(one)].push(one);
    }
    for (const { phases } of rounds) {
      let free = 0;
      for (const ballots of phases.filter(all => all.length)) {
        const was = Math.max(free, Math.min(...ballots.map(one => one.sent)));
        free = was + BALLOT_PAST_MS;
        for (const one of ballots) Object.assign(one, { was, gone: free });
      }
    }
  },

  frame(at, frame) {
    at = Math.max(at, this.newest);
    this.newest = at;
    if (frame.full) this.current = structuredClone(frame.full);
    else this.current = merge(this.current, frame.patch);
    this.patches = frame.full ? 0 : (this.patches ?? 0) + 1;
    this.frames.push(frame.patch && this.patches >= PATCHES_MAX ? { at, full: structuredClone(this.current) } : { at, ...frame });
    if (this.patches >= PATCHES_MAX) this.patches = 0;
    this.follow(at);
    this.forget(at - KEPT_MS);
  },
  /// Extends the spans of all nodes and the series by the newest state.
  follow(at) {
    const state = this.current;
    for (const id of idsOf(state)) {
      for (const [what, term] of doingsOf(state, id)) {
        const open = this.spans.findLast(span => span.node === id && span.what === what && span.to === null);
        if (!open || open.term !== term) {
          if (open) open.to = at;
          this.spans.push({ node: id, from: at, to: null, what, term });
        }
      }
    }
    for (const span of this.spans) {
      if (span.to === null && (!state.nodes[span.node] || !doingsOf(state, span.node).some(([what]) => what === span.what))) span.to = at;
    }
    const last = this.series.at(-1);
    if (!last || at - last.at >= 1000) this.series.push({ at, writes: state.writes_per_s, p99: state.p99_ms });
  },
  forget(before) {
    let full = 0;
    while (this.frames.length && this.frames[full + 1]?.at < before) full += 1;
    while (full > 0 && !this.frames[full].full) full -= 1;
    this.frames.splice(0, full);
    // A span that lasts has no end. (A ballot's `to` is a node.)
    for (const [all, end] of [[this.spans, 'to'], [this.ballots, 'until'], [this.series, 'at']]) {
      while (all.length && all[0][end] !== null && all[0][end] < before) all.shift();
    }
    while (this.events.length > 500) this.events.shift();
  },

  last() { return this.current; },
  /// The oldest moment that can be shown again.
  get oldest() { return this.frames[0]?.at ?? this.newest; },
  /// The state at a moment.
  stateAt(at) {
    let end = this.frames.length;
    while (end > 1 && this.frames[end - 1].at > at) end -= 1;
    let start = end - 1;
    while (start > 0 && !this.frames[start].full) start -= 1;
    let state = structuredClone(this.frames[start].full);
    for (const { patch, full } of this.frames.slice(start + 1, end)) state = full ? structuredClone(full) : merge(state, patch);
    return state;
  },
};

/// What a node does that the timeline shows, with the term where it has one.
function doingsOf(state, id) {
  const node = state.nodes[id], doings = [];
  if (isSilent(node)) return [['down']];
  if (node.role === 'leader' && state.leader === id) doings.push(['leader', node.term]);
  if (isCampaigning(node)) doings.push(['election', node.term]);
  if (isSlow(node)) doings.push(['slow']);
  if (state.leader && state.leader !== id && linkOf(state, state.leader, id)?.state === 'cut') doings.push(['cut']);
  return doings;
}

/// Reads Server-Sent Events from a node, and from the next member when it ends. `fetch` and not `EventSource`, which
/// can't send a token.
const source = {
  base: '',          // the node that serves: empty for the one that served the page
  lost: null,        // {since, trying} while there is no connection
  listeners: { news: () => {}, event: () => {}, missed: () => {}, lost: () => {}, denied: () => {} },

  async run() {
    for (let attempt = 0; ; attempt += 1) {
      const ended = await this.read(this.base).catch(error => error);
      if (ended === 'denied') return this.listeners.denied();
      if (ended === 'served') attempt = 0;
      const state = record.last(), others = state && !state.demo ? this.addresses(state) : [''];
      this.base = others[attempt % others.length];
      this.lost = { since: this.lost?.since ?? record.newest, trying: this.base || location.host };
      this.listeners.lost();
      await new Promise(resume => setTimeout(resume, Math.min(250 * 2 ** Math.min(attempt, 4), 2000)));
    }
  },
  /// The HTTP addresses of the members, those of other nodes first, and the page's own.
  addresses(state) {
    const own = state.served_by, scheme = location.protocol + '//';
    const of = id => { const http = state.nodes[id].http; return !http ? null : http.includes('://') ? http : scheme + http; };
    const others = idsOf(state).filter(id => id !== own).map(of).filter(Boolean);
    return [...others, ''].filter((base, i, all) => all.indexOf(base) === i);
  },
  async read(base) {
    const stop = new AbortController(), token = sessionStorage.getItem(TOKEN);
    let served = false, last = performance.now();
    const patience = setInterval(() => { if (performance.now() - last > SILENCE_MS) stop.abort(); }, 1000);
    try {
      const headers = token ? { authorization: `Bearer ${token}` } : {};
      // Another node may ask for the browser's certificate, too.
      const credentials = base ? 'include' : 'same-origin';
      const response = await fetch(base + '/live', { headers, credentials, signal: stop.signal, cache: 'no-store' });
      if (response.status === 401 || response.status === 403) return 'denied';
      if (!response.ok) return 'refused';
      // A stream of texts would cost several tasks for each message.
      const reader = response.body.getReader(), decoder = new TextDecoder();
      for (let rest = ''; ;) {
        const { value, done } = await reader.read();
        if (done) break;
        last = performance.now();
        const parts = (rest + decoder.decode(value, { stream: true })).split('\n\n');
        rest = parts.pop();
        for (const part of parts) if (this.take(part)) served = true;
      }
    } catch {
      // The connection ended, or was silent.
    } finally {
      clearInterval(patience);
      stop.abort();
    }
    return served ? 'served' : 'ended';
  },
  take(part) {
    const field = name => part.split('\n').filter(line => line.startsWith(name + ':')).map(line => line.slice(name.length + 1).trimStart()).join('\n');
    const kind = field('event'), data = field('data');
    if (!data) return false;
    const content = JSON.parse(data);
    switch (kind) {
      case 'snapshot': record.snapshot(content); this.lost = null; this.listeners.news(true); break;
      case 'delta': record.delta(content); this.listeners.news(false); break;
      case 'event': this.listeners.event(record.event(content)); break;
      case 'ballot': record.ballot(content); this.listeners.news(false); break;
      case 'lost': this.listeners.missed(content); break;
      case 'gap': break; // a new snapshot follows
    }
    return true;
  },
};
