// The script that once closed the port, as a backend runs it: it makes an agent, at once writes twelve of its files
// and talks to it, over HTTP and over its WebSocket. That one WebSocket lives through all rounds.

import assert from "node:assert/strict";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import { Client } from "./client.mjs";
import { TOKEN } from "./front.mjs";

const ROUNDS = 100;
const ROUND_MS = 300;
const WRITES = 12;
const FILES = ["AGENTS", "SOUL", "TOOLS", "IDENTITY", "USER", "HEARTBEAT", "BOOTSTRAP", "MEMORY"];

async function talk(front, agent, message) {
    const answer = await fetch(`http://127.0.0.1:${front.port}/v1/chat/completions`, {
        method: "POST",
        headers: { authorization: `Bearer ${TOKEN}`, "content-type": "application/json" },
        body: JSON.stringify({ model: `openclaw/${agent}`, messages: [{ role: "user", content: message }] }),
    });
    const body = await answer.json();
    assert.equal(answer.status, 200, JSON.stringify(body));
    assert.equal(body.choices[0].message.content, message);
}

async function write(client, agentId, number) {
    const name = `${FILES[number % FILES.length]}.md`;
    const content = `${number} of ${agentId}`;
    const { file } = await client.call("agents.files.set", { agentId, name, content });
    assert.equal(file.content, content);
}

async function round(front, client, number) {
    const agent = `backend-${number}`;
    const workspace = join(front.directory, agent);
    const { agentId } = await client.call("agents.create", { name: agent, workspace });
    assert.equal(agentId, agent);
    const sessionKey = `agent:${agent}:main`;
    const said = { sessionKey, message: `hello of ${agent}`, idempotencyKey: agent };
    const writes = Array.from({ length: WRITES }, (_, file) => write(client, agent, file));
    await Promise.all([...writes, talk(front, agent, `round ${number}`), client.call("chat.send", said)]);
    assert.equal(await client.answerOf(agent), said.message);
    // The last file that was written once only.
    const { file } = await client.call("agents.files.get", { agentId: agent, name: "MEMORY.md" });
    assert.equal(file.content, `7 of ${agent}`);
}

export async function backend(front, report) {
    await report.step("backend", `${ROUNDS} × agents.create, ${WRITES} files, a chat`, async () => {
        const client = await Client.connect(front.port, { scopes: ["operator.admin"] });
        for (let number = 0; number < ROUNDS; number += 1) {
            const next = pause(ROUND_MS);
            await round(front, client, number);
            await next;
        }
        const { agents } = await client.call("agents.list", {});
        const ids = new Set(agents.map((agent) => agent.id));
        assert.equal(ids.size, ROUNDS + 1, "an agent for each round, and main");
        assert(client.events >= ROUNDS, "each answer is an event");
        client.close();
        return { note: `0 disconnects, ${client.events} events without a gap` };
    });
}
