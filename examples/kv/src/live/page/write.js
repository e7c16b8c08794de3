// 5: a write. Bars on one time axis; a part for which the majority did not wait is dashed.
const write = { rows: {}, none: null };

function buildWrite(state) {
  const grid = $('fall');
  write.rows = {};
  grid.innerHTML = '<span class="h">Stage</span><span class="h ms"></span><span class="h r">mean</span><span class="h r p">p99</span>';
  write.scale = grid.children[1];
  const row = (name, label, x, cls = '') => {
    const button = el('button', cls, grid, label);
    button.type = 'button';
    button.dataset.x = x;
    write.rows[name] = { name: button, bar: el('div', 'b', grid, '<u></u><i></i>'), mean: el('span', 'r', grid), p99: el('span', 'r p', grid) };
  };
  row('queue', 'Queue', 'queue');
  row('encode', 'Encode', 'encode');
  row('quorum', `Quorum, ${majorityOf(state)} of ${state.config.voters.length}`, 'quorum');
  for (const id of state.config.voters.map(Number)) {
    row('n' + id, `Node ${id}`, 'voter', 'in');
    const { bar } = write.rows['n' + id];
    bar.className = 'b peer';
    bar.insertAdjacentHTML('afterbegin', '<s hidden></s>');
    bar.style.cssText = colour(id);
  }
  row('commit', 'Commit', 'commitq');
  row('apply', 'Apply', 'apply');
  row('reply', 'Reply', 'reply');
  write.none = el('div', 'none', grid);
  write.none.hidden = true;
}

/// The end of the axis: a round number of milliseconds that holds the mean and most of its p99.
function axisOf(total) {
  const least = Math.max(.01, total * 1.4), power = 10 ** Math.floor(Math.log10(least));
  return power * [1, 2, 4, 10].find(n => n * power >= least);
}

function drawWrite(state) {
  const stages = state.stages_ms, has = state.leader && stages;
  hide(write.none, Boolean(has));
  if (!has) {
    for (const { bar, mean, p99 } of Object.values(write.rows)) {
      for (const part of bar.children) hide(part, true);
      set(mean, '–');
      set(p99, '');
    }
    set(write.none, state.leader ? 'No write in the last seconds.' : `No leader, so no write completes. <b>${count(state.waiting)}</b> wait.`);
    set($('sum'), '');
    return;
  }
  const names = ['queue', 'encode', 'quorum', 'commit', 'apply', 'reply'], total = names.reduce((sum, name) => sum + (stages[name]?.[0] ?? 0), 0);
  const most = axisOf(total), part = ms => (100 * Math.min(1, ms / most)).toFixed(2) + '%', digits = most < .2 ? 3 : 2;
  set(write.scale, [0, .25, .5, .75].map(f => `<span style="left:${100 * f}%">${f ? +(f * most).toPrecision(2) : '0 ms'}</span>`).join(''));
  const bar = (name, from, pair) => {
    const row = write.rows[name], [whisker, solid] = [row.bar.querySelector('u'), row.bar.querySelector('i')];
    for (const part of [solid, whisker]) hide(part, !pair);
    set(row.mean, pair ? (pair[0] > 20 ? String(Math.round(pair[0])) : pair[0].toFixed(digits)) : '–');
    set(row.p99, pair ? (pair[1] > 20 ? String(Math.round(pair[1])) : pair[1].toFixed(digits)) : '');
    if (!pair) return;
    solid.style.left = whisker.style.left = part(from);
    solid.style.width = from + pair[0] > most ? `calc(100% - ${part(from)})` : `max(2px, ${part(pair[0])})`;
    whisker.style.width = `calc(${part(from + pair[1])} - ${part(from)})`;
  };
  const start = (stages.queue?.[0] ?? 0) + (stages.encode?.[0] ?? 0), quorum = stages.quorum?.[0] ?? 0;
  let from = 0;
  for (const name of names) {
    bar(name, from, stages[name]);
    from += stages[name]?.[0] ?? 0;
  }
  for (const id of state.config.voters.map(Number)) {
    const pair = stages.voters?.[id], row = write.rows['n' + id], line = row.bar.querySelector('s');
    bar('n' + id, start, pair);
    set(row.name, `Node ${id}<span>, ${id === state.leader ? 'own disk' : 'send and disk'}</span>`);
    hide(line, false);
    line.style.left = part(start + quorum);
    row.bar.classList.toggle('late', Boolean(pair) && pair[0] > quorum * 1.02);
  }
  set($('sum'), `${total.toFixed(2)} ms on average. Dashed: not waited for`);
}
