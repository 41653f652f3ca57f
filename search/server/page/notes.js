// What was understood of a question: notes above its results, and what was not read struck through.

// `place`: of the notes.  `heading`: shows the first text.  `found`: { notes, texts } of /api/search.
export function notes(place, heading, { notes: said, texts }) {
  place.replaceChildren(...said.map((note) => element("p", sentence(note))));
  const [parts] = texts;
  const whole = parts?.map(({ text }) => text).join("");
  if (whole !== heading.textContent || parts.every(({ how }) => how === "read")) return;
  heading.replaceChildren(...parts.map(({ text, how }) => {
    if (how === "read") return document.createTextNode(text);
    const struck = element("s", text);
    struck.title = how === "unknown" ? "not known to this model" : "not read: the text is too long";
    return struck;
  }));
}

// What to know of the words that the texts have, where there is something; `info`: of /api/info.
export function language(place, info) {
  place.textContent = info.words ? sentence(info.words) : "";
  place.hidden = !info.words;
}

const element = (name, text) => Object.assign(document.createElement(name), { textContent: text });

const sentence = (text) => (/[.?!”]$/.test(text) ? text : `${text}.`);
