// The address: steps, the last of which is what is asked, and how it is shown.
//
// A step is `image` ("" for none) and `text`, and what else belongs to it until the next `image`:
// `weight` of the text, `also` (WEIGHT:TEXT), `and` (a further picture), `region` (of the first),
// `not` (a text), `more` and `less` (pictures), `where`, `k`.

const LISTS = ["also", "and", "not", "more", "less"];
const SINGLE = ["weight", "region", "where", "k"];
const VIEW = ["show", "sort", "descending", "unfold", "beside"];

export const step = (image, text = "", rest = {}) => ({
  image: String(image), text, ...Object.fromEntries(LISTS.map((name) => [name, []])), ...rest,
});

export function read(address) {
  const steps = [];
  for (const [name, value] of new URL(address, location).searchParams) {
    if (name === "image") steps.push(step(value));
    const here = last(steps);
    if (!here) continue;
    if (name === "text" || (SINGLE.includes(name) && value)) here[name] = value;
    else if (LISTS.includes(name) && value) here[name].push(value);
  }
  return steps;
}

// How it is shown: { show, sort, descending, unfold, beside }, each a string or absent.
export function readView(address) {
  const query = new URL(address, location).searchParams;
  return Object.fromEntries(VIEW.filter((name) => query.get(name)).map((name) => [name, query.get(name)]));
}

export function write(steps, view = {}) {
  const query = new URLSearchParams();
  for (const one of steps) {
    query.append("image", one.image);
    query.append("text", one.text);
    for (const name of SINGLE) if (one[name]) query.append(name, one[name]);
    for (const name of LISTS) for (const value of one[name]) query.append(name, value);
  }
  for (const name of VIEW) if (view[name]) query.append(name, view[name]);
  return query.size ? `/?${query}` : "/";
}

export const last = (steps) => steps[steps.length - 1];
export const isRow = (image) => /^\d{1,10}$/.test(image);
export const isUpload = (image) => /^[0-9a-f]{32}$/.test(image);
export const large = (image) => (isRow(image) ? `/api/images/${image}` : `/api/uploads/${encodeURIComponent(image)}`);
export const small = (image) => (isRow(image) ? `${large(image)}/thumb` : large(image));

// "2:red" is a text and its weight; without a weight it counts 1.
export function weighted(typed) {
  const match = /^\s*(\d+(?:\.\d+)?|\.\d+)\s*:(.*)$/s.exec(typed);
  return match ? { text: match[2].trim(), weight: Number(match[1]) } : { text: typed.trim(), weight: 1 };
}

// What the service is asked for a step.
export function question(asked) {
  const sent = (image) => (isRow(image) ? Number(image) : image);
  const named = [asked.image, ...asked.and].filter((image) => image);
  const images = named.map(sent);
  if (asked.region && images.length) images[0] = { image: images[0], region: Number(asked.region) };
  const texts = [
    ...(asked.text ? [{ text: asked.text, weight: Number(asked.weight) || 1 }] : []),
    ...asked.also.map(weighted),
  ];
  return {
    ...(images.length ? { images } : {}), texts, nots: asked.not, more: asked.more.map(sent), less: asked.less.map(sent),
    ...(asked.where ? { where: asked.where } : {}),
  };
}

// The pictures that a step names.
export const pictures = (asked) => [asked.image, ...asked.and, ...asked.more, ...asked.less].filter((image) => image);

// Whether marks on its results can be learned from: one picture of the gallery and one text.
export const teaches = (asked) =>
  isRow(asked.image) && Boolean(asked.text) &&
  !asked.region && !["and", "also", "not", "more", "less"].some((name) => asked[name].length);
