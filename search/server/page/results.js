// The results of one question, fetched page by page.

import { question } from "./address.js";
import { post } from "./service.js";

const PAGE = 60;
const MOST = 10_000; // that the service gives for one question
const SORTED = 200; // of which the order is another, unless a number is asked for

export class Results {
  // `asked`: a step of the address.  `view`: how it is shown.  `beside`: of the other run.
  constructor(asked, view = {}, beside = false) {
    const most = Math.min(MOST, Number(asked.k) || (view.sort ? SORTED : MOST));
    this.sent = { ...question(asked), most, beside, descending: Boolean(view.descending) };
    if (view.sort) this.sent.sort = view.sort;
    [this.hits, this.more, this.start, this.notes, this.texts] = [[], true, 0, [], []];
  }

  // Fetch a further page; one at a time.
  next(signal) {
    this.waiting ??= this.fetch(signal).finally(() => (this.waiting = null));
    return this.waiting;
  }

  async fetch(signal) {
    const began = performance.now();
    const k = Math.min(PAGE, this.sent.most - this.start);
    const answer = await post("/api/search", { ...this.sent, start: this.start, k }, signal);
    this.took ??= performance.now() - began;
    this.seconds ??= answer.seconds;
    if (!this.start) [this.notes, this.texts] = [answer.notes, answer.texts];
    answer.hits.forEach((hit, i) => this.hits.push({ ...hit, place: this.start + i + 1 }));
    this.start += k;
    this.more = answer.more && this.start < this.sent.most;
  }

  // What is shown as one tile each: { row, path, score, place, alike }, alike being the results
  // that are nearly the same and come later; each its own tile where they are unfolded.
  tiles(unfold) {
    const first = new Map();
    for (const hit of this.hits) {
      const leader = unfold ? undefined : first.get(hit.like);
      if (leader) leader.alike.push(hit);
      else first.set(hit.row, { ...hit, alike: [] });
    }
    return [...first.values()];
  }
}
