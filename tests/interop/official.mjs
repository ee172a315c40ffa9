// The official OpenAI client, which never retries here: plain chat, streamed chat and the list of models.

import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";

import { TOKEN } from "./front.mjs";

const TIMES = 50;
const PACE_MS = 500;

const asked = (text) => ({ model: "openclaw/main", messages: [{ role: "user", content: text }] });

async function plain(client, text) {
    const answer = await client.chat.completions.create(asked(text));
    assert.equal(answer.choices[0].message.content, text);
    assert.equal(answer.choices[0].finish_reason, "stop");
}

async function streamed(client, text) {
    let said = "";
    let reason;
    for await (const chunk of await client.chat.completions.create({ ...asked(text), stream: true })) {
        said += chunk.choices[0]?.delta?.content ?? "";
        reason = chunk.choices[0]?.finish_reason ?? reason;
    }
    assert.equal(said, text);
    assert.equal(reason, "stop");
}

async function models(client) {
    const { data } = await client.models.list();
    assert(data.some((model) => model.id === "openclaw/main"), JSON.stringify(data));
}

export async function official(front, report, OpenAI) {
    const baseURL = `http://127.0.0.1:${front.port}/v1`;
    const client = new OpenAI({ apiKey: TOKEN, baseURL, maxRetries: 0, timeout: 10_000 });
    const paced = async (work) => {
        for (let time = 0; time < TIMES; time += 1) {
            const next = pause(PACE_MS);
            await work(client, `message ${time} of the official client`);
            await next;
        }
        return { note: "each answered, none retried" };
    };
    await Promise.all([
        report.step("openai", `${TIMES} × chat.completions.create`, () => paced(plain)),
        report.step("openai", `${TIMES} × chat.completions.create, streamed`, () => paced(streamed)),
        report.step("openai", `${TIMES} × models.list`, () => paced(models)),
    ]);
}
