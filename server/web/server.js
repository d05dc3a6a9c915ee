// Speaking to the server that the page came from. The key lives in sessionStorage: it ends with the
// tab.

const kKey = "flexllm-key";

export const storedKey = () => sessionStorage.getItem(kKey);
export const forgetKey = () => sessionStorage.removeItem(kKey);
export const storeKey = (key) => sessionStorage.setItem(kKey, key);

// What the server answers instead: `message` is its own, `detail` says which error it is.
export class ServerError extends Error {
  constructor(status, error) {
    super(error.message || `The server answers with status ${status}.`);
    this.status = status;
    this.detail = [status, error.type, error.param, error.code].filter(Boolean).join(" · ");
  }
}

export async function request(path, { body, signal } = {}) {
  const headers = {};
  if (storedKey()) headers.Authorization = `Bearer ${storedKey()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let reply;
  try {
    reply = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers,
      body: typeof body === "string" || body === undefined ? body : JSON.stringify(body),
      signal,
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(0, { message: "The server cannot be reached.", type: error.message });
  }
  return reply;
}

async function checked(reply) {
  if (reply.ok) return reply;
  const text = await reply.text();
  let error = { message: text };
  try {
    error = JSON.parse(text).error ?? error;
  } catch {
    // Something between the server and this page answered.
  }
  throw new ServerError(reply.status, error);
}

export const getJson = async (path) => (await checked(await request(path))).json();

// The chunks of a streamed chat, as they come.
export async function* chat(body, signal) {
  const wanted = { ...body, stream: true, stream_options: { include_usage: true } };
  const reply = await checked(await request("/v1/chat/completions", { body: wanted, signal }));
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let unread = "";
  while (true) {
    const { value, done } = await reader.read();
    if (done) throw new ServerError(0, { message: "The connection ended before the answer did." });
    unread += value;
    const events = unread.split("\n\n");
    unread = events.pop();
    for (const event of events) {
      if (!event.startsWith("data: ")) continue;  // a comment that keeps the connection alive
      const data = event.slice(6);
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ServerError(0, chunk.error);
      yield chunk;
    }
  }
}
