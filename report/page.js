// A word that is pointed at, focused or chosen lights its regions on the reference.
for (const example of document.querySelectorAll(".example")) {
  const regions = example.querySelectorAll(".reference .region");
  const words = example.querySelectorAll("button.word");
  let chosen = null;
  const show = (word) => {
    const weights = word ? word.dataset.weights.split(" ") : [];
    regions.forEach((region, i) => (region.style.fillOpacity = 0.55 * (weights[i] ?? 0) / 100));
    for (const one of words) {
      one.classList.toggle("shown", one === word);
      one.setAttribute("aria-pressed", one === chosen);
    }
  };
  for (const word of words) {
    word.addEventListener("pointerenter", () => show(word));
    word.addEventListener("pointerleave", () => show(chosen));
    word.addEventListener("focus", () => show(word));
    word.addEventListener("blur", () => show(chosen));
    word.addEventListener("click", () => show((chosen = chosen === word ? null : word)));
  }
}
