// Agents answered by models: of an OpenAI-compatible server that somebody else wrote, and of the real `claude`, which
// speaks to the same server and stays between its turns.
//
// The server knows no network: what it answers is written here.

import assert from "node:assert/strict";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import { TOKEN } from "./front.mjs";

const TIMES = 20;
const TURNS = 20;
const PACE_MS = 1000;
const ANSWER = "Forty-two, said the model, and it took its time to say so in so many words.";
/** So that answers take about a second, and straddle takeovers. */
const SLOWLY = { chunkSize: 5, streamingProfile: { ttft: 100, tps: 16 } };

/** Starts the server; what it answers, and how it fails. */
export async function serve({ LLMock }) {
    const server = new LLMock({ port: 0, host: "127.0.0.1" });
    const fails = (word, status, message, more) =>
        server.onMessage(word, { error: { message, type: "error" }, status, ...more });
    fails("refuse", 401, "the key is wrong");
    fails("later", 429, "too many requests", { retryAfter: 3600 });
    fails("overload", 529, "overloaded");
    server.onMessage("cut", { content: ANSWER }, { ...SLOWLY, truncateAfterChunks: 3 });
    server.onMessage(/./, { content: ANSWER }, SLOWLY);
    await server.start();
    return server;
}

/** What has to be there before the worker starts. */
export const prepareFor = (server, claude) => async (state) => {
    await mkdir(state, { recursive: true, mode: 0o700 });
    const env = {
        ANTHROPIC_BASE_URL: server.url,
        ANTHROPIC_API_KEY: "key",
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
        DISABLE_AUTOUPDATER: "1",
        // Or it does nothing for root without asking.
        IS_SANDBOX: "1",
    };
    const config = {
        gateway: { mode: "local" },
        agents: {
            defaults: { cliBackends: { "claude-cli": { command: claude, env } } },
            list: [
                { id: "main", model: "other/any" },
                { id: "program", model: "claude-cli/sonnet" },
            ],
        },
        models: { providers: { other: { baseUrl: `${server.url}/v1`, apiKey: "key" } } },
    };
    await writeFile(join(state, "openclaw.json"), JSON.stringify(config));
};

const asked = (agent, text) => ({ model: `openclaw/${agent}`, messages: [{ role: "user", content: text }] });

async function plain(client, agent, text) {
    const answer = await client.chat.completions.create(asked(agent, text));
    assert.equal(answer.choices[0].message.content, ANSWER);
}

async function streamed(client, agent, text, options) {
    let said = "";
    const stream = await client.chat.completions.create({ ...asked(agent, text), stream: true }, options);
    for await (const chunk of stream) {
        said += chunk.choices[0]?.delta?.content ?? "";
    }
    assert.equal(said, ANSWER);
}

/** A request that fails, in these words. */
async function fails(client, text, words) {
    const failure = await client.chat.completions.create(asked("main", text)).then(
        () => undefined,
        (error) => error.message,
    );
    assert(failure?.includes(words), `${failure}, and not ${words}`);
    return { note: words };
}

/** The process ids of the front's CLI agents. */
async function programs(front) {
    const lines = async (pid) => (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).split("\0");
    const found = [];
    for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
        const words = await lines(pid);
        if (words.some((word) => word.startsWith(front.state)) && words.includes("--mcp-config")) {
            found.push(pid);
        }
    }
    return found;
}

/** Turns of one session of `claude`. */
async function conversation(client, front) {
    const options = { headers: { "x-openclaw-session-key": "agent:program:interop" } };
    const pids = new Set();
    for (let turn = 0; turn < TURNS; turn += 1) {
        const next = pause(PACE_MS);
        await streamed(client, "program", `turn ${turn}`, options);
        for (const pid of await programs(front)) {
            pids.add(pid);
        }
        await next;
    }
    return { note: `each answered, by ${pids.size} process${pids.size === 1 ? "" : "es"}` };
}

export async function models(front, report, OpenAI) {
    const baseURL = `http://127.0.0.1:${front.port}/v1`;
    const client = new OpenAI({ apiKey: TOKEN, baseURL, maxRetries: 0, timeout: 30_000 });
    const paced = async (work) => {
        for (let time = 0; time < TIMES; time += 1) {
            const next = pause(PACE_MS);
            await work(client, "main", `message ${time}`);
            await next;
        }
        return { note: "each answered, none retried" };
    };
    const step = (what, work) => report.step("models", what, work);
    await Promise.all([
        step(`${TIMES} × a provider's model`, () => paced(plain)),
        step(`${TIMES} × a provider's model, streamed`, () => paced(streamed)),
        step("a provider that refuses the key", () => fails(client, "refuse", "401 the key is wrong")),
        step("a provider that wants to be asked later", () => fails(client, "later", "429 too many requests")),
        step("a provider that has too much to do", () => fails(client, "overload", "529 overloaded")),
        step("a provider that cuts its answer", () => fails(client, "cut", "other/any failed")),
        step(`${TURNS} turns of claude`, () => conversation(client, front)),
    ]);
}
