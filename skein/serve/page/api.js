// The server's API. Texts from it are data; nothing here touches the document.
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const KEY = "skein.key";
export const apiKey = () => localStorage.getItem(KEY) ?? "";
export const setApiKey = key => key ? localStorage.setItem(KEY, key) : localStorage.removeItem(KEY);

async function ask(path, options = {}) {
  const headers = {...options.headers};
  if (apiKey()) headers.Authorization = `Bearer ${apiKey()}`;
  let response;
  try {
    response = await fetch(path, {...options, headers});
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new ApiError(0, "The server does not answer.");
  }
  if (response.ok) return response;
  let message = `${response.status} ${response.statusText}`;
  try {
    message = (await response.json()).error.message;
  } catch { /* no JSON: the status says it */ }
  throw new ApiError(response.status, message);
}

export const models = async () => (await (await ask("/v1/models")).json()).data;
export const ready = async () => (await ask("/ready")).json();

// Calls onEvent with each event of a streamed answer. Aborting the signal closes the connection, which stops the work.
export async function stream(path, body, signal, onEvent) {
  const response = await ask(path, {
    method: "POST",
    headers: {"Content-Type": "application/json"},
    body: JSON.stringify({...body, stream: true, stream_options: {include_usage: true}}),
    signal,
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const {value, done} = await reader.read();
    if (done) throw new ApiError(0, "The answer broke off: the connection was closed.");
    held += value;
    const events = held.split("\n\n");
    held = events.pop();
    for (const event of events) {
      if (!event.startsWith("data: ")) continue;
      const text = event.slice(6);
      if (text === "[DONE]") return;
      const data = JSON.parse(text);
      if (data.error) throw new ApiError(500, data.error.message);
      onEvent(data);
    }
  }
}
