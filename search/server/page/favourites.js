// Pictures that are kept in mind, in this browser, for one run.

let name = "";
let kept = []; // paths, oldest first
const told = new Set();

export function open(run) {
  name = `cqr-favourites-${run}`;
  load();
}

function load() {
  try {
    kept = JSON.parse(localStorage.getItem(name)) ?? [];
  } catch {
    kept = []; // what is there is not ours, or nothing may be kept: for as long as the page is open
  }
  for (const tell of told) tell();
}

export const all = () => [...kept];
export const has = (path) => kept.includes(path);
export const onChange = (tell) => told.add(tell);

export function toggle(path) {
  kept = has(path) ? kept.filter((one) => one !== path) : [...kept, path];
  try {
    localStorage.setItem(name, JSON.stringify(kept));
  } catch {
    // they are there until the page is left
  }
  for (const tell of told) tell();
}

addEventListener("storage", (event) => event.key === name && load());
