// Servers as people have them, under the adapters: each is replaced ten times while clients open one connection after
// the other, and nobody is refused, reset or left without an answer. One closes connections when it stops that it has
// accepted and not read from: under `activate` those are counted, under `relay` it has none.
//
// usage: node main.mjs HOLDFAST VENV [NGINX]; an empty VENV or NGINX is one that could not be had

import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { Front } from "../front.mjs";
import { Report } from "../report.mjs";

const TAKEOVERS = 10;
const CLIENTS = 4;
/** How a client sees that it was closed without an answer, its request unread. */
const UNREAD = ['closed after ""', "read ECONNRESET"];
const here = join(dirname(fileURLToPath(import.meta.url)), "servers");
const [holdfast, venv, nginx] = process.argv.slice(2);
const report = new Report();

/** One request over a connection of its own; throws unless all of its answer came. */
function visit(port) {
    return new Promise((resolve, reject) => {
        const socket = connect({ port, host: "127.0.0.1" });
        let answer = "";
        socket.setTimeout(10_000, () => socket.destroy(new Error("no answer within 10 s")));
        socket.setEncoding("latin1").on("data", (text) => (answer += text));
        socket.once("error", reject);
        socket.once("close", () => {
            const whole = answer.startsWith("HTTP/1.1 200 ") && answer.endsWith("ok");
            return whole ? resolve() : reject(new Error(`closed after ${JSON.stringify(answer)}`));
        });
        socket.once("connect", () => socket.write("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    });
}

/** Clients until `over`; how many were served, and how each of the others was not. */
async function load(port, over) {
    let served = 0;
    const failures = [];
    const client = async () => {
        while (!over()) {
            await visit(port).then(() => (served += 1), (error) => failures.push(error.message));
        }
    };
    await Promise.all(Array.from({ length: CLIENTS }, client));
    return { served, failures };
}

async function scene(name, words, { prepare = async () => {}, closesUnread = false } = {}) {
    await report.step(name, `${TAKEOVERS} takeovers under new connections`, async () => {
        const front = await Front.start(holdfast, prepare, words);
        try {
            let over = false;
            const clients = load(front.port, () => over);
            front.beginTakeovers();
            while ((await front.status()).takeovers.committed < TAKEOVERS) {
                await new Promise((later) => setTimeout(later, 200));
            }
            const { committed } = await front.calm();
            over = true;
            const { served, failures } = await clients;
            const unread = closesUnread ? failures.filter((failure) => UNREAD.includes(failure)) : [];
            const others = failures.filter((failure) => !unread.includes(failure));
            assert.deepEqual(others, [], await front.log());
            assert(served > 100, `only ${served} requests`);
            const counts = `0 refused, ${unread.length} closed unread`;
            return { note: `${committed} committed · ${served} connections, ${counts}` };
        } finally {
            await front.stop();
        }
    });
}

/** A port of this machine that nobody listens on now: nginx has to be told in its configuration. */
async function freePort() {
    const server = createServer().listen(0, "127.0.0.1");
    await new Promise((listening) => server.once("listening", listening));
    const { port } = server.address();
    await new Promise((closed) => server.close(closed));
    return port;
}

const activate = ["--adapter", "activate"];
const probed = [...activate, "--ready-http", "/"];
await scene("node", [...probed, "--", process.execPath, join(here, "server.mjs"), "{fd}"]);
if (venv) {
    // -B: nothing is written beside the servers.
    const python = (module) => [join(venv, "bin", "python"), "-B", "-m", module];
    const inServers = ["--chdir", here];
    await scene("gunicorn", [...probed, "--", ...python("gunicorn"), "-w", "2", ...inServers, "wsgi:app"]);
    const uvicorn = [...python("uvicorn"), "--app-dir", here, "--log-level", "warning", "asgi:app"];
    await scene("uvicorn", [...probed, "--", ...uvicorn, "--fd", "{fd}"], { closesUnread: true });
    const relayed = ["--adapter", "relay", "--ready-http", "/"];
    await scene("uvicorn, relayed", [...relayed, "--", ...uvicorn, "--port", "{port}"]);
}
if (nginx) {
    const port = await freePort();
    const listen = ["--listen", `127.0.0.1:${port}`, "--stop-signal", "QUIT"];
    const configured = async (state) => {
        await mkdir(state, { recursive: true, mode: 0o700 });
        const text = await readFile(join(here, "nginx.conf"), "utf8");
        await writeFile(join(state, "nginx.conf"), text.replace("@PORT@", String(port)));
    };
    const words = ["env", "NGINX={fd};", nginx, "-e", "stderr", "-p", "state", "-c", "nginx.conf"];
    await scene("nginx", [...listen, ...probed, "--", ...words], { prepare: configured });
}
process.exitCode = report.print() ? 0 : 1;
