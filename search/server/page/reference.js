// The picture of the question, and the regions of it that a word looks at.

const NAMESPACE = "http://www.w3.org/2000/svg";
const BOLD = 0.35; // of the largest weight: regions above it are outlined
const NAMED = 3; // regions whose share is said

export class Reference {
  // `place`: the element to draw into.  `looks`: where it is said in words what a word looks at.
  constructor(place, looks) {
    [this.place, this.looks] = [place, looks];
    this.empty = [...place.childNodes];
    this.clear();
  }

  clear() {
    this.draw(this.empty, "empty");
  }

  wait() {
    this.draw([], "waiting");
  }

  // Draw the picture at an address; rejects if it cannot be had.
  async show(address, label) {
    this.address = address;
    const image = new Image();
    image.src = address;
    try {
      await image.decode();
    } catch {
      if (this.address === address) this.draw([], "");
      throw new Error("This picture cannot be shown.");
    }
    if (this.address !== address) return; // another was asked for meanwhile
    [this.width, this.height] = [image.naturalWidth, image.naturalHeight];
    this.svg = svg("svg", { viewBox: `0 0 ${this.width} ${this.height}`, role: "img" });
    this.svg.setAttribute("aria-label", label);
    this.svg.append(svg("image", { href: address, width: this.width, height: this.height }));
    this.draw([this.svg], "");
    if (this.attention) this.regions(this.attention);
  }

  draw(nodes, state) {
    this.place.className = state;
    this.place.replaceChildren(...nodes);
    if (!nodes.includes(this.svg)) this.svg = this.attention = this.address = null;
  }

  // What was attended: { words, boxes, weights, way, said }, or null.
  regions(attention) {
    this.attention = attention;
    if (!this.svg) return;
    for (const part of this.svg.querySelectorAll("mask, .dim, .box")) part.remove();
    if (!attention) return;
    const whole = { width: this.width, height: this.height };
    const mask = svg("mask", { id: "seen" });
    mask.append(svg("rect", { ...whole, fill: "#fff" }));
    const boxes = attention.boxes.map(([left, top, right, bottom]) => ({
      x: left * this.width, y: top * this.height,
      width: (right - left) * this.width, height: (bottom - top) * this.height,
    }));
    this.holes = boxes.map((box) => svg("rect", { ...box, class: "hole", opacity: 0 }));
    this.outlines = boxes.map((box) => svg("rect", { ...box, class: "box", rx: 2 }));
    mask.append(...this.holes);
    this.svg.append(mask, svg("rect", { ...whole, class: "dim", mask: "url(#seen)" }), ...this.outlines);
  }

  // Light the regions of a word by its place in the text; null: of none.
  light(word) {
    const lit = word !== null && this.svg !== null && this.attention;
    this.place.classList.toggle("lit", Boolean(lit));
    const weights = lit ? this.attention.weights[word] : this.attention?.boxes.map(() => 0) ?? [];
    const most = Math.max(...weights, 1e-9);
    weights.forEach((weight, region) => {
      const share = weight / most;
      if (!this.svg) return;
      this.holes[region].style.opacity = share;
      this.outlines[region].style.opacity = share >= BOLD ? share : 0;
    });
    this.looks.textContent = lit ? said(this.attention, word, weights) : "";
  }
}

function said({ words, way, said }, at, weights) {
  const word = words[at];
  const first = weights.toSorted((a, b) => b - a).slice(0, NAMED);
  const shares = first.map((weight) => `${Math.round(100 * weight)} %`).join(", ");
  const does = way === "change" ? ["changes", "changes most"] : ["looks at", "looks most at"];
  const seen =
    weights.length === 1
      ? `“${word}” ${does[0]} the one region there is`
      : `“${word}” ${does[1]} regions with ${shares}`;
  return said ? `${seen}.  ${said}` : seen;
}

function svg(name, attributes) {
  const element = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
