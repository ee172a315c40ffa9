// A provider of models as OpenAI is one, on loopback: it says a word a second, as slow models do.

import { createServer } from "node:http";
import { setTimeout as pause } from "node:timers/promises";

/** What every answer is made of. */
export const WORDS = Array.from({ length: 20 }, (_, index) => `word${index} `);
export const ANSWER = WORDS.join("").trim();
const PAUSE_MS = 1000;

const chunk = (delta, finish = null) => ({
    id: "chatcmpl-1",
    object: "chat.completion.chunk",
    created: 1,
    model: "slow",
    choices: [{ index: 0, delta, finish_reason: finish }],
});

async function answer(request, response) {
    for await (const _ of request);
    response.writeHead(200, { "content-type": "text/event-stream" });
    const say = (event) => response.write(`data: ${JSON.stringify(event)}\n\n`);
    for (const word of WORDS) {
        say(chunk({ role: "assistant", content: word }));
        await pause(PAUSE_MS);
    }
    const usage = { prompt_tokens: 1, completion_tokens: WORDS.length, total_tokens: WORDS.length + 1 };
    say({ ...chunk({}, "stop"), usage });
    response.end("data: [DONE]\n\n");
}

/** Starts it; `url` is its base, `stop` ends it. */
export async function startProvider() {
    const server = createServer((request, response) => answer(request, response).catch(() => response.destroy()));
    await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
    const stop = () => {
        server.closeAllConnections();
        server.close();
    };
    return { url: `http://127.0.0.1:${server.address().port}/v1`, stop };
}
