// In words: where a word looks, what a text changes, what a region adds to a score.

const NAMED = 3; // regions whose share is said
// Times the share that each region would have, if all had the same: less than this is nothing to say.
const ALIKE = { attention: 1.5, share: 1.2 };

// `way` is what the weights are: where a word looks, what a whole text changes, or what a region adds.
export function said({ words, boxes, weights: all, way, said: how, ...rest }, at) {
  if (way === "share") return added(rest, at);
  const word = words[at], weights = all[at], changes = way === "change";
  if (weights.length === 1) return `“${word}” ${changes ? "changes" : "looks at"} the one region there is`;
  if (!changes && alike(weights)) return `“${word}” looks everywhere alike`;
  const first = weights.map((weight, region) => ({ weight, region }))
    .filter(({ weight }) => weight >= 0.01)
    .sort((a, b) => b.weight - a.weight)
    .slice(0, changes ? 1 : NAMED);
  const share = (weight) => (changes ? "" : ` ${percent(weight)}`);
  const shares = first.map(({ weight, region }) => `${spot(boxes[region])}${share(weight)}`);
  const seen = `“${word}” ${changes ? "changes" : "looks"} most${changes ? "" : " at"}: ${shares.join(", ")}`;
  return how ? `${seen}.  ${how}` : seen;
}

// What a region adds to the score; of all: how to read their brightness.
function added({ shares, score, regions }, at) {
  const region = regions[at];
  if (region === null) return `The brighter, the more of the score of ${score.toFixed(3)}`;
  const part = shares[region];
  return part < 0
    ? `It speaks against this picture, by ${(-part * score).toFixed(3)}`
    : `It adds ${(part * score).toFixed(3)} to the score of ${score.toFixed(3)}`;
}

// Whether no weight is much more than an equal one: then there is nothing to say.
export const alike = (weights, way = "attention") =>
  weights.length > 1 && Math.max(...weights) < ALIKE[way] / weights.length;

const percent = (share) => `${share < 0 ? "−" : ""}${Math.round(100 * Math.abs(share))} %`;

// Shares of a score as `light` of a Reference takes them, with how each region is called, those that
// matter first; null where they say nothing: of one region, of regions without boxes, or that add alike.
export function divided({ boxes, shares: added, score }) {
  const shares = added.map((share) => share / score);
  const placed = boxes.some(([left, top, right, bottom]) => right > left && bottom > top);
  if (!(score > 0) || !placed || boxes.length < 2 || alike(shares, "share")) return null;
  const order = shares.map((_, region) => region).filter((region) => Math.abs(shares[region]) >= 0.01);
  order.sort((a, b) => Math.abs(shares[b]) - Math.abs(shares[a]));
  return { way: "share", boxes, shares, score, order, name: (region) => `${spot(boxes[region])} ${percent(shares[region])}` };
}

// Where a box lies, in words, as "top left".
function spot([left, top, right, bottom]) {
  const third = (at) => Math.min(2, Math.floor(3 * at));
  const row = ["top", "middle", "bottom"][third((top + bottom) / 2)];
  return `${row} ${["left", "center", "right"][third((left + right) / 2)]}`;
}

