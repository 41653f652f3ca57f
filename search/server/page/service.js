// The service that the page belongs to.

const TRIES = 3; // of a service that is busy

// Call the service; throws an Error whose message is a sentence for the reader.  Its `again` says
// whether the same call may do better later, its `status` what HTTP said (0: nothing).
export async function call(address, options = {}) {
  for (let left = TRIES; ; left--) {
    let answer;
    try {
      answer = await fetch(address, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw failure("The service does not answer: is `cqr serve` still running?", 0);
    }
    if (answer.ok) return answer.json();
    if (answer.status === 503 && left > 1) {
      await new Promise((later) => setTimeout(later, 1000 * answer.headers.get("Retry-After")));
      continue;
    }
    const { detail } = await answer.json().catch(() => ({ detail: answer.statusText }));
    throw failure(sentence(detail || "the service failed"), answer.status);
  }
}

export const post = (address, content, signal) =>
  call(address, {
    method: "POST", signal,
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(content),
  });

const failure = (message, status) =>
  Object.assign(new Error(message), { status, again: status === 0 || status === 408 || status >= 500 });

const sentence = (text) => text[0].toUpperCase() + text.slice(1) + (/[.?!]$/.test(text) ? "" : ".");
