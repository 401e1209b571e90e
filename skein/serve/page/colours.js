// Colours and letters of experts, the same in every view: those with the most weight get one each, the rest share grey.
const OKABE_ITO = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#8A8A8A"];
const GREY = "#B0B0B0";
export const VIRIDIS = ["#440154", "#482878", "#3e4a89", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];

export class ExpertColours {
  constructor(names) {
    this.names = names;
    this.order([...names.keys()]);
  }
  // Most weight first.
  order(experts) {
    this.colour = [];
    this.letter = [];
    experts.forEach((e, rank) => {
      this.colour[e] = rank < OKABE_ITO.length ? OKABE_ITO[rank] : GREY;
      this.letter[e] = rank < 26 ? String.fromCharCode(65 + rank) : String(rank + 1);
    });
  }
  tint(e, strength) {
    const [r, g, b] = [1, 3, 5].map(i => parseInt(this.colour[e].slice(i, i + 2), 16));
    const most = document.documentElement.dataset.theme === "dark" ? 0.5 : 0.8;
    return `rgba(${r}, ${g}, ${b}, ${(Math.min(1, strength) * most).toFixed(3)})`;
  }
  swatch(e) {
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.textContent = this.letter[e];
    swatch.style.background = this.colour[e];
    swatch.style.color = this.colour[e] === "#0072B2" ? "#fff" : "#000";
    return swatch;
  }
}

export const percent = x => (100 * x).toFixed(x < 0.0995 && x > 0 ? 1 : 0) + " %";

export function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}
