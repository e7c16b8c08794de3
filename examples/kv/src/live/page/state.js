// 1: the state in words. The server makes the sentences, so that page, terminal, log and alerts say the same.
const SIGNS = {
  lost: '<circle cx="9" cy="9" r="8" stroke-dasharray="3 3.3"/>',
  ok: '<circle cx="9" cy="9" r="8"/><path d="M5 9.3l2.7 2.7L13 6.5"/>',
  warn: '<path d="M9 1.5L17 16H1z"/><path d="M9 6.5v4.5M9 13v.6"/>',
  bad: '<path d="M5.5 1h7L17 5.5v7L12.5 17h-7L1 12.5v-7z"/><path d="M6 6l6 6M12 6l-6 6"/>',
};

function verdictOf(state) {
  if (source.lost && page.live) {
    const leads = state.leader ? `When last heard, node ${state.leader} led term ${state.nodes[state.leader].term}.` : 'When last heard, there was no leader.';
    return { level: 'lost', word: 'Connection lost', says: leads,
      facts: `Trying ${source.lost.trying}.`, needs: [{ text: `Everything below is from ${clock(source.lost.since)}.` }] };
  }
  return { ...state.verdict, needs: state.needs };
}

function drawState(state, all) {
  const verdict = verdictOf(state), word = $('word');
  if (word.shown !== verdict.level + verdict.word) {
    word.shown = verdict.level + verdict.word;
    word.className = 'word ' + verdict.level;
    word.dataset.x = verdict.level;
    word.innerHTML = `<svg viewBox="0 0 18 18" aria-hidden="true" fill="none" stroke="currentColor" stroke-width="1.8"
      stroke-linejoin="round">${SIGNS[verdict.level]}</svg>${text(verdict.word)}`;
    document.title = `${verdict.word} · ${state.cluster} · Quorate`;
  }
  set($('says'), verdict.says.split(/(?<=\.) (?=[A-Z])/).map(sentence => `<span>${text(sentence)}</span>`).join(' '));
  // Figures that change each time are read once a second at most.
  if (all || word.level !== verdict.level) {
    word.level = verdict.level;
    set($('facts'), `<button type="button" class="fig" data-x="facts">${text(verdict.facts).replace(/\d[\d,]*/g, '<b>$&</b>')}</button>`);
  }
  set($('needs'), verdict.needs.slice(0, 2).map(need => `<li>${text(need.text)}${
    need.next ? ` Next: <code>${text(need.next)}</code>` : ''}${need.runbook ? ` · Guide: <code>${text(need.runbook)}</code>` : ''}</li>`).join('') || '<li>Nothing needs attention.</li>');
  const whole = 'fill="currentColor"', broken = 'fill="none" stroke="currentColor" stroke-dasharray="2 2"';
  const sign = kind => `<svg width="10" height="10" viewBox="0 0 10 10" aria-hidden="true"><circle cx="5" cy="5" r="4" ${kind}/></svg>`;
  const { playground } = state;
  const now = playground && page.live ? (playground.is_running ? 'Simulated time passes' : 'Simulated time stands') : page.replay ? `Replay, 1/${page.slower} speed` : page.live ? 'Live' : `Paused at ${clock(page.at)}`;
  set($('conn'), source.lost ? `${sign(broken)} Lost node ${Number(state.served_by)}, trying another`
    : `${sign(whole)} ${now} <span id="host">${playground ? '' : `from node ${Number(state.served_by)}`}</span>`);
  document.documentElement.classList.toggle('stale', source.lost !== null && page.live);
}
