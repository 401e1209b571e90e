// One conversation: what is asked of the server for each pane, and how its turns are shown.
import * as api from "./api.js";
import {element} from "./colours.js";
import {Trace, paintAnswer} from "./trace.js";

// What a pane's model has seen: its own answers, or the other pane's where it has none.
function messagesOf(turns, pane, system) {
  const messages = system ? [{role: "system", content: system}] : [];
  for (const turn of turns) {
    messages.push({role: "user", content: turn.user});
    const answer = turn.answers[pane] ?? turn.answers[0];
    if (answer?.text) messages.push({role: "assistant", content: answer.text});
  }
  return messages;
}

// Streams one answer into `answer`; onChange after each piece. router: changes to the router, or null.
export async function ask({turns, pane, model, settings, router, wantsTrace, answer, signal, onChange}) {
  const body = {...settings.request(), model: model.id};
  if (wantsTrace && model.experts.length) body.trace = true;
  if (router) body.router = router;
  // A base without a chat template goes on from the last message as it stands.
  const path = model.chat ? "/v1/chat/completions" : "/v1/completions";
  if (model.chat) body.messages = messagesOf(turns, pane, settings.system());
  else body.prompt = turns.at(-1).user;
  const began = performance.now();
  let first = 0, tokens = 0;
  try {
    await api.stream(path, body, signal, event => {
      const choice = event.choices?.[0];
      if (choice) {
        const piece = choice.delta?.content ?? choice.text ?? "";
        if (piece && !first) first = performance.now();
        answer.text += piece;
        if (choice.trace) (answer.trace ??= new Trace()).add(choice.trace);
        if (choice.finish_reason) answer.end = choice.finish_reason;
      }
      if (event.usage) tokens = event.usage.completion_tokens;
      onChange();
    });
    const seconds = (performance.now() - (first || began)) / 1000;
    const rate = tokens > 1 && seconds > 0 ? `${((tokens - 1) / seconds).toFixed(1)} tokens/s · ` : "";
    answer.note = `${tokens} tokens · ${rate}first after ${Math.round((first || performance.now()) - began)} ms` +
      (answer.end === "length" ? " · cut at the limit" : "");
  } catch (problem) {
    if (problem.name === "AbortError") answer.note = "stopped";
    else {
      answer.problem = problem.message;
      answer.status = problem.status;
    }
  } finally {
    answer.isRunning = false;
    onChange();
  }
}

// Draws the answers of one pane. A turn's nodes are kept, so that a stream changes only what it must.
export class PaneView {
  constructor(section, index, {onToken, onFocus, onCopy}) {
    this.section = section;
    this.index = index;
    this.title = section.querySelector(".pane-title");
    this.box = section.querySelector(".turns");
    this.callbacks = {onToken, onFocus, onCopy};
    section.addEventListener("focusin", () => onFocus(index));
    section.addEventListener("pointerdown", () => onFocus(index));
  }

  show(chat, colours, empty) {
    this.colours = colours;
    this.nodes = new Map();
    this.box.replaceChildren();
    if (!chat.turns.length) {
      this.box.append(empty());
      return;
    }
    for (const turn of chat.turns) this.#addTurn(turn);
    this.box.scrollTop = this.box.scrollHeight;
  }

  #addTurn(turn) {
    const answer = turn.answers[this.index];
    const node = element("div", {className: "turn"}, element("div", {className: "user", textContent: turn.user}));
    this.box.append(node);
    if (!answer) return;
    const text = element("div", {className: "answer"});
    const note = element("span"), copy = element("button", {type: "button", textContent: "Copy"});
    copy.addEventListener("click", () => this.callbacks.onCopy(answer.text));
    node.append(text, element("div", {className: "meta"}, note, copy));
    this.nodes.set(answer, {text, note, copy, turn});
    this.update(answer);
  }

  update(answer) {
    const nodes = this.nodes?.get(answer);
    if (!nodes) return;
    const isAtEnd = this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < 80;
    nodes.text.classList.toggle("waiting", Boolean(answer.isRunning));
    if (answer.trace?.tokens) {
      const other = this.index === 1 ? nodes.turn.answers[0]?.trace : null;
      paintAnswer(nodes.text, answer.text, answer.trace, this.colours, other, token => this.callbacks.onToken(answer, token));
    } else {
      nodes.text.classList.remove("traced");
      nodes.text.textContent = answer.text;
    }
    nodes.note.className = answer.problem ? "problem" : "";
    nodes.note.textContent = [answer.model, answer.problem ?? answer.note ?? ""].filter(Boolean).join(" · ");
    nodes.copy.hidden = !answer.text;
    if (isAtEnd) this.box.scrollTop = this.box.scrollHeight;
  }
}
