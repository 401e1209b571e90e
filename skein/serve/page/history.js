// Conversations, kept in this browser. A conversation: {id, title, models, turns: [{user, answers: [answer, answer?]}]};
// an answer: {model, text, note, trace}. Traces are large and stay in memory only.
const KEY = "skein.chats", MOST = 100;

export class History {
  constructor() {
    this.chats = [];
    try {
      const kept = JSON.parse(localStorage.getItem(KEY) ?? "[]");
      if (Array.isArray(kept)) this.chats = kept.filter(chat => chat && Array.isArray(chat.turns));
    } catch { /* damaged: begin anew */ }
  }
  start() {
    const chat = {id: `${Date.now()}-${Math.random().toString(36).slice(2)}`, title: "", turns: []};
    this.chats.unshift(chat);
    return chat;
  }
  remove(id) {
    this.chats = this.chats.filter(chat => chat.id !== id);
    this.save();
  }
  // False: the browser has no more room, or allows none.
  save() {
    this.chats = this.chats.filter((chat, i) => i === 0 || chat.turns.length > 0);
    const kept = this.chats.filter(chat => chat.turns.length > 0).slice(0, MOST);
    for (let count = kept.length; count > 0; count = Math.floor(count / 2)) {
      try {
        localStorage.setItem(KEY, JSON.stringify(kept.slice(0, count), (key, value) => key === "trace" ? undefined : value));
        return count === kept.length;
      } catch { /* full: keep the newer half */ }
    }
    if (kept.length === 0) localStorage.removeItem(KEY);
    return kept.length === 0;
  }
}
