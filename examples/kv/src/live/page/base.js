'use strict';
// Helpers of all parts. An element is written only where its text or attribute differs: a write costs a layout.

const $ = id => document.getElementById(id);
const set = (element, html) => { if (element.was !== html) element.innerHTML = element.was = html; };
/// The same for text alone, which is quicker.
const spell = (element, text) => { if (element.was !== text) element.textContent = element.was = text; };
const put = (element, name, value) => {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
};
const hide = (element, is) => { if (element.hidden !== is) element.hidden = is; };
const el = (tag, cls, parent, html = '') => {
  const element = document.createElement(tag);
  element.className = cls;
  element.innerHTML = html;
  parent?.append(element);
  return element;
};

const clamp = (x, least = 0, most = 1) => Math.min(most, Math.max(least, x));
const count = n => n == null ? '–' : Math.round(n).toLocaleString('en');
const duration = ms => ms < 10_000 ? (ms / 1000).toFixed(1) + ' s' : Math.round(ms / 1000) + ' s';
const clock = (wall_ms, parts) => new Date(wall_ms).toISOString().slice(11, parts ? 21 : 19);
const list = words => words.length < 2 ? words.join('') : words.slice(0, -1).join(', ') + ' and ' + words.at(-1);
/// Text of a node or of an operator, which is no markup.
const text = value => String(value).replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`);

const colour = id => `--c:var(--n${(id - 1) % 7 + 1})`;
const disc = (id, square) =>
  `<span class="dot${square ? ' sq' : ''}" style="${colour(id)}" aria-hidden="true">${text(id)}</span>`;

// Facts of a cluster, from its state at a moment.
const idsOf = state => Object.keys(state.nodes).map(Number).sort((a, b) => a - b);
const majorityOf = state => (state.config.voters.length >> 1) + 1;
const isWitness = (state, id) => state.config.witness === id;
const isLearner = (state, id) => state.config.learners.includes(id);
const lagOf = (state, id) => {
  const leader = state.nodes[state.leader]?.last, own = state.nodes[id].last;
  return leader == null || own == null ? 0 : Math.max(0, leader - own);
};
const isSlow = node => node.disk_slow === true;
/// Whether it does not answer, nor does another node pass on what it says.
const isSilent = node => !node.up;
const linkOf = (state, a, b) => state.links[`${a}>${b}`] ?? state.links[`${b}>${a}`];
const isCampaigning = node => Boolean(node.votes);
/// Indexes of a log of which nothing is known are 0.
const logOf = ({ first = 1, snapshot = 0, applied = 0, commit = 0, durable = 0, last = 0, conflict = null }) =>
  ({ first, snapshot, applied, commit, durable, last, conflict });
