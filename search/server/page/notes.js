// What was understood of a question: notes above its results, and what was not read struck through.

// `place`: the list of notes.  `heading`: shows the text.  `answer`: of /api/search, or null.
export function notes(place, heading, answer) {
  const said = answer?.notes ?? [];
  place.replaceChildren(...said.map((note) => element("li", sentence(note))));
  place.hidden = !said.length;
  const [parts] = answer?.texts ?? [];
  if (!parts?.some(({ how }) => how !== "read")) return;
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
