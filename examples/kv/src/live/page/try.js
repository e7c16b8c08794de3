// 7: faults, in the demo and the playground alone. The parent process does them: a node has no such switch.
const NODE_FAULTS = [['kill', 'Kill'], ['start', 'Start'], ['pause', 'Pause process'], ['resume', 'Resume']];
const LINK_FAULTS = [['cut', 'Cut'], ['one_way', 'One way'], ['slow', 'Slow'], ['heal', 'Heal']];

function buildTry(state) {
  const form = $('demo');
  form.hidden = !state.demo;
  if (!state.demo) return;
  const ids = idsOf(state), links = ids.flatMap(a => ids.filter(b => a < b).map(b => [a, b]));
  form.innerHTML = `<b>Try</b><label class="hush" for="whom">Node or link</label><select id="whom" class="btn">${
    ids.map(id => `<option value="${id}">Node ${id}</option>`).join('')}${
    links.map(([a, b]) => `<option value="${a}-${b}">Link ${a} to ${b}</option>`).join('')}</select><span id="tried" role="status"></span>`;
  const offer = () => {
    form.querySelectorAll('button').forEach(button => button.remove());
    const target = $('whom').value;
    for (const [fault, label] of target.includes('-') ? LINK_FAULTS : NODE_FAULTS) {
      const button = el('button', 'btn', null, label);
      button.type = 'button';
      button.onclick = () => attempt(fault, target);
      $('tried').before(button);
    }
  };
  $('whom').onchange = offer;
  offer();
}

async function attempt(fault, target) {
  set($('tried'), '');
  const [a, b] = target.split('-').map(Number);
  const asked = await fetch('/live/faults', { method: 'POST', headers: { 'content-type': 'application/json' },
    body: JSON.stringify(b ? { fault, from: a, to: b } : { fault, node: a }) }).catch(() => null);
  if (!asked?.ok) set($('tried'), `The fault was refused${asked ? ` (${asked.status})` : ': the demo does not answer'}.`);
}
