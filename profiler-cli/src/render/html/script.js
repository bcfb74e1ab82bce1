'use strict';
// What the page cannot do by itself: the filter and the keys. Nothing here is needed to read it.

const lines = document.querySelectorAll('tr.growth > th > a, tr.release > th > a');
const functions = document.querySelectorAll('section > .about > h2 > a');
const filter = document.getElementById('filter');
const keys = document.getElementById('keys');

function narrow() {
  const wanted = filter.value.trim().toLowerCase();
  const items = [...document.querySelectorAll('nav li')];
  for (const item of items) {
    item.hidden = !item.querySelector('.name').textContent.toLowerCase().includes(wanted);
  }
  const left = items.filter((item) => !item.hidden).length;
  document.getElementById('found').textContent = wanted ? `${left} of ${items.length}` : '';
}

// The reader stands where the focus is, or else where the link has led that brought them here.
function place() {
  const active = document.activeElement;
  if (active?.closest('main section')) {
    return active;
  }
  return document.querySelector('tr:target > th > a, section:target > .about > h2 > a');
}

function go(links, forward) {
  const here = place();
  const side = forward ? Node.DOCUMENT_POSITION_FOLLOWING : Node.DOCUMENT_POSITION_PRECEDING;
  const beyond = (link) => !here || (link !== here && here.compareDocumentPosition(link) & side);
  const link = [...links].filter(beyond).at(forward ? 0 : -1);
  if (link) {
    link.focus({ preventScroll: true });
    const whole = link.closest('tr') === null;
    link.scrollIntoView({ block: whole ? 'start' : 'center', inline: 'nearest' });
  }
}

const actions = {
  j: () => go(lines, true),
  k: () => go(lines, false),
  n: () => go(functions, true),
  p: () => go(functions, false),
  '/': () => filter.focus(),
  '?': () => keys.showModal(),
};

document.addEventListener('keydown', (event) => {
  const typing = event.target instanceof Element && event.target.matches('input:not([type=checkbox])');
  if (typing || keys.open || event.ctrlKey || event.altKey || event.metaKey) {
    return;
  }
  if (Object.hasOwn(actions, event.key)) {
    event.preventDefault();
    actions[event.key]();
  }
});

filter.addEventListener('input', narrow);
filter.addEventListener('keydown', (event) => {
  if (event.key === 'Enter') {
    document.querySelector('nav li:not([hidden]) a')?.click();
  } else if (event.key === 'Escape') {
    filter.value = '';
    narrow();
    filter.blur();
  }
});

const button = document.getElementById('show-keys');
button.addEventListener('click', () => keys.showModal());
button.hidden = false;
document.getElementById('filtering').hidden = false;
document.documentElement.dataset.ready = 'yes';
