// The real clients, each on a front of its own whose worker is replaced every second.
//
// usage: node main.mjs HOLDFAST CACHE

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";

import { backend } from "./backend.mjs";
import { commandLine, prepare } from "./cli.mjs";
import { Front } from "./front.mjs";
import { models, prepareFor, serve } from "./models.mjs";
import { official } from "./official.mjs";
import { Report } from "./report.mjs";

const VERSIONS = [
    { version: "2026.5.12", canPatch: true },
    { version: "2026.4.26", canPatch: false },
];
/** Fewer takeovers would prove little. */
const FEWEST = 20;

const [holdfast, cache] = process.argv.slice(2);
const report = new Report();

/** Starts a front, lets clients at it while it replaces its worker, and counts how often it did. */
async function onAFront(scene, play, prepared = prepare) {
    await report.step(scene, "(takeovers, one a second)", async () => {
        const front = await Front.start(holdfast, prepared);
        try {
            front.beginTakeovers();
            await play(front);
            const { committed, moved } = await front.calm();
            assert(committed >= FEWEST, `only ${committed} takeovers`);
            // One-shot clients are rarely there to be moved; who stays connected always is.
            assert(scene !== "backend" || moved >= FEWEST, `only ${moved} connections were moved`);
            return { note: `${committed} committed · ${moved} connections moved, 0 closed, 0 cut · 0 crashes` };
        } finally {
            await front.stop();
        }
    });
}

const require = createRequire(join(cache, "tools", "main.mjs"));
const { OpenAI } = require("openai");
const server = await serve(require("@copilotkit/aimock"));
const claude = join(cache, `tools/node_modules/@anthropic-ai/claude-code-linux-${process.arch}/claude`);
await Promise.all([
    onAFront("models", (front) => models(front, report, OpenAI), prepareFor(server, claude)),
    onAFront("backend", (front) => Promise.all([backend(front, report), official(front, report, OpenAI)])),
]);
await server.stop();
await Promise.all(
    VERSIONS.map((client) =>
        onAFront(`openclaw ${client.version}`, (front) => {
            const program = join(cache, `openclaw-${client.version}/node_modules/openclaw/openclaw.mjs`);
            return commandLine(front, report, { ...client, program, node: process.execPath });
        }),
    ),
);
process.exitCode = report.print() ? 0 : 1;
