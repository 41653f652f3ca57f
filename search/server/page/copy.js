// Copy a text; gives whether that was possible.

import { make } from "./dom.js";

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // No clipboard under an address that is not this machine's and not https: the older way.
    const field = make("textarea", { value: text, readOnly: true });
    (document.querySelector("dialog[open]") ?? document.body).append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}
