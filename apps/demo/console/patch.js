/**
 * Makes the children of an element equal to new ones. What is the same stays, with the focus and the selection in it.
 * Elements with `data-key` are the same if their keys are. The new children have no listeners.
 * @param {Element} parent
 * @param {Iterable<Node>} children
 */
export function patchChildren(parent, children) {
  const keyed = new Map([...parent.children].filter(keyOf).map((child) => [keyOf(child), child]));
  let at = parent.firstChild;
  for (const child of [...children]) {
    const key = keyOf(child);
    const match = key ? keyed.get(key) : at && !keyOf(at) ? at : null;
    if (!match || match.nodeName !== child.nodeName) {
      parent.insertBefore(child, at);
      continue;
    }
    if (match === at) at = at.nextSibling;
    else parent.insertBefore(match, at);
    patch(match, child);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function patch(old, next) {
  if (!(next instanceof Element)) {
    if (old.data !== next.data) old.data = next.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!next.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of next.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  patchChildren(old, next.childNodes);
}

function keyOf(node) {
  return node instanceof HTMLElement ? node.dataset.key : undefined;
}
