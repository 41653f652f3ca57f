// Elements, made and found.

export const $ = (id) => document.getElementById(id);

// An element: properties and attributes (those with a dash, and role), then what is in it.
export function make(name, given = {}, ...inside) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (key.includes("-") || key === "role") element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...inside);
  return element;
}

export function button(text, act, given = {}) {
  const made = make("button", { type: "button", textContent: text, ...given });
  made.addEventListener("click", act);
  return made;
}

// Whether somebody types there, so that keys are letters.
export const typing = (target) => Boolean(target.closest?.("input, textarea, select"));
