// Colours and letters of experts, the same in every view: the first eight get one each, the rest
// share grey and are told apart by their letters and names.
const OKABE_ITO = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#8A8A8A"];
const GREY = "#B0B0B0";
export const VIRIDIS = ["#440154", "#482878", "#3e4a89", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];

export class ExpertColours {
  #ranks = new Map();
  // Names that are new take the next colours; those known keep theirs.
  learn(names) {
    for (const name of names) if (!this.#ranks.has(name)) this.#ranks.set(name, this.#ranks.size);
  }
  // Gives these the first colours, most weight first; the others follow as they were.
  order(names) {
    const rest = [...this.#ranks.keys()].filter(name => !names.includes(name));
    this.#ranks = new Map([...names, ...rest].map((name, rank) => [name, rank]));
  }
  colour(name) {
    return OKABE_ITO[this.#ranks.get(name)] ?? GREY;
  }
  letter(name) {
    const rank = this.#ranks.get(name) ?? 0;
    return rank < 26 ? String.fromCharCode(65 + rank) : String(rank + 1);
  }
  tint(name, strength) {
    const [r, g, b] = [1, 3, 5].map(i => parseInt(this.colour(name).slice(i, i + 2), 16));
    // Text on the strongest tint keeps a contrast of 4.5. The root: a share of a third is seen too.
    const most = document.documentElement.dataset.theme === "dark" ? 0.42 : 0.8;
    return `rgba(${r}, ${g}, ${b}, ${(Math.sqrt(Math.min(1, strength)) * most).toFixed(3)})`;
  }
  swatch(name) {
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.textContent = this.letter(name);
    swatch.style.background = this.colour(name);
    swatch.style.color = this.colour(name) === "#0072B2" ? "#fff" : "#000";
    return swatch;
  }
}

export const percent = x => (100 * x).toFixed(x < 0.0995 && x > 0 ? 1 : 0) + " %";

export function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}
