// 6: the story. New sentences come on top; while a "why" is open, the list keeps its place.
const STORY_MAX = 200;

/// Kinds that say again, from the other side, what a vote or a state says.
const SAID_TWICE = ['vote_received', 'link_up', 'term_changed'];

function tell(event) {
  if (SAID_TWICE.includes(event.kind)) return;
  const item = document.createElement('li'), says = text(event.text);
  item.at = event.at;
  const why = event.why ? `<details><summary>Why<span class="hush"> this happened: ${says}</span></summary><p>${text(event.why)}${
    event.ref ? `<em>${text(source_of(event.ref))}</em>` : ''}</p></details>` : '';
  const index = event.index ? ` · entry ${count(event.index)}` : '';
  item.innerHTML = `${disc(event.node)}<div><div class="meta">${clock(event.at, true)} · term ${Number(event.term)}${index}</div><p>${says}</p>${why}</div>`;
  if (event.kind === 'leader_elected') {
    const button = el('button', 'again', null, 'Replay slowly');
    button.type = 'button';
    button.onclick = () => replay(event);
    item.querySelector('p').after(button);
  }
  const log = $('log'), keeps = log.scrollTop > 4 || log.querySelector('details[open]'), height = log.scrollHeight;
  $('list').prepend(item);
  if (keeps) log.scrollTop += log.scrollHeight - height;
  while ($('list').children.length > STORY_MAX) $('list').lastChild.remove();
}

function retell() {
  $('list').innerHTML = '';
  record.events.filter(event => event.at <= page.at).slice(-STORY_MAX).forEach(tell);
  $('log').scrollTop = 0;
}

/// A note of the page itself, such as its move to another node.
function note(state, says, why) {
  const event = { at: record.newest, node: state.served_by, term: state.nodes[state.served_by].term ?? 0, kind: 'page', text: says, why };
  record.events.push(event);
  tell(event);
}
