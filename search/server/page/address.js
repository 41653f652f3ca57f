// The address: a step is a picture and a text; the last one is what is asked.

export function read(address) {
  const query = new URL(address, location).searchParams;
  const texts = query.getAll("text");
  return query.getAll("image").map((image, i) => ({ image, text: texts[i] ?? "" }));
}

export function write(steps) {
  const query = new URLSearchParams();
  for (const { image, text } of steps) {
    query.append("image", image);
    query.append("text", text);
  }
  return steps.length ? `/?${query}` : "/";
}

export const last = (steps) => steps[steps.length - 1];
export const isRow = (image) => /^\d{1,10}$/.test(image);
export const isUpload = (image) => /^[0-9a-f]{32}$/.test(image);
export const large = (image) => (isRow(image) ? `/api/images/${image}` : `/api/uploads/${encodeURIComponent(image)}`);
export const small = (image) => (isRow(image) ? `${large(image)}/thumb` : large(image));
