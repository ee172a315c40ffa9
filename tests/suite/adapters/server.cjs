// A server as somebody writes it who knows of Node and of nothing else. Its first word says how it listens on PORT,
// further ones what else it does.
//
// | path | answer |
// | --- | --- |
// | `/hold?FILE` | once FILE exists |
// | `/given` | its process, its environment, and what `address()` says |
// | `/child` | the environment and the descriptors of a process that it starts |
// | `/signal?NAME` | has sent that signal to itself |
// | `/close` | has closed its servers |
// | any other | a line of text |
"use strict";

const { execFileSync } = require("node:child_process");
const cluster = require("node:cluster");
const fs = require("node:fs");
const http = require("node:http");
const os = require("node:os");
const path = require("node:path");
const { Worker } = require("node:worker_threads");

const port = Number(process.env.PORT);
const [how, ...words] = process.argv.slice(2);
/** A worker that is younger is not replaced by its own wish. */
const LEAST_AGE_MS = 5000;
const servers = [];
const others = [];

const again = () => {};
/** Every way to ask for a port that Node's documentation has. */
const WAYS = {
    port: (server) => server.listen(port),
    "port-text": (server) => server.listen(`${port}`),
    "port-callback": (server) => server.listen(port, again),
    "port-host": (server) => server.listen(port, "127.0.0.1"),
    "port-host-callback": (server) => server.listen(port, "127.0.0.1", again),
    "port-backlog": (server) => server.listen(port, 1),
    "port-host-backlog-callback": (server) => server.listen(port, "127.0.0.1", 1, again),
    options: (server) => server.listen({ port }),
    "options-host-callback": (server) => server.listen({ port, host: "127.0.0.1", backlog: 1 }, again),
    "options-name": (server) => server.listen({ port, host: "localhost", exclusive: true }),
    anywhere: (server) => server.listen(port, "0.0.0.0"),
    six: (server) => server.listen({ port, host: "::1" }),
    twice: (server) => server.listen(port, () => server.close(() => server.listen(port))),
    both: (server) => {
        server.listen(port, "127.0.0.1");
        serve("six").listen(port, "::1");
    },
    elsewhere: (server) => server.listen(0, "127.0.0.1"),
    child: () => {
        // As npm does it: another process listens.
        const child = `require("node:http").createServer().listen({ port: ${port}, reusePort: true })`;
        execFileSync(process.execPath, ["-e", child], { stdio: "inherit" });
    },
    cluster: () => {
        if (cluster.isPrimary) cluster.fork();
        else http.createServer().listen(port);
    },
};

/** What else it may do. */
const WORDS = {
    others: () => {
        const directory = fs.mkdtempSync(path.join(os.tmpdir(), "node-"));
        for (const place of [[0], [path.join(directory, "socket")], [{ path: path.join(directory, "other") }]]) {
            const server = http.createServer().listen(...place, () => others.push(server.address()));
        }
    },
    // A thread loads again whatever Node was told to load first.
    thread: () => new Worker("require('node:net')", { eval: true }).on("error", (error) => console.error(`thread ${error}`)),
    finish: () => process.on("SIGTERM", () => finish("SIGTERM")),
    // As OpenClaw's gateway: it restarts by that signal, within its process unless somebody else starts it again.
    restart: () => process.on("SIGUSR1", () => finish("SIGUSR1")),
    "restart-later": () => process.on("SIGUSR2", () => finish("SIGUSR2")),
    exit: () => setTimeout(() => process.exit(0), LEAST_AGE_MS),
    "exit-then-fail": () => {
        if (process.env.HOLDFAST_GENERATION === "g1") WORDS.exit();
        if (process.env.HOLDFAST_GENERATION === "g2") process.exit(3);
    },
    // It is at something else for two seconds once it listens, with the one thread that Node has.
    busy: () => servers[0].once("listening", () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2000)),
    // It has something else to do than to serve.
    linger: () => setInterval(again, 1000),
};

function finish(signal) {
    console.error(`server ${process.pid} finishes by ${signal}`);
    Promise.all(servers.map((server) => new Promise((closed) => server.close(closed)))).then(() => process.exit(0));
}

async function answer(name, request, response) {
    const [where, query] = request.url.split("?");
    response.setHeader("x-holdfast-generation", process.env.HOLDFAST_GENERATION ?? "none");
    const variables = (environment) => Object.entries(environment).map(([key, value]) => `environment ${key}=${value}`);
    switch (where) {
        case "/hold":
            while (!fs.existsSync(query)) await new Promise((looked) => setTimeout(looked, 5));
            return response.end("held\n");
        case "/given": {
            const addresses = servers.map((server) => `address ${JSON.stringify(server.address())}`);
            const elsewhere = others.map((address) => `other ${JSON.stringify(address)}`);
            const from = `from ${name} ${request.socket.remoteAddress} ${request.socket.localPort}`;
            const lines = [`pid ${process.pid}`, from, ...addresses, ...elsewhere, ...variables(process.env)];
            return response.end(`${lines.join("\n")}\n`);
        }
        case "/child": {
            const script = `
                const { readdirSync, readlinkSync } = require("node:fs");
                const target = (number) => { try { return readlinkSync("/proc/self/fd/" + number); } catch { return ""; } };
                for (const number of readdirSync("/proc/self/fd")) console.log("descriptor " + number + " " + target(number));
                for (const [key, value] of Object.entries(process.env)) console.log("environment " + key + "=" + value);`;
            return response.end(execFileSync(process.execPath, ["-e", script]));
        }
        case "/signal":
            process.kill(process.pid, query);
            return response.end("sent\n");
        case "/close":
            response.setHeader("connection", "close");
            response.end("closing\n");
            return servers.forEach((server) => server.close());
        default:
            return response.end("as it is\n");
    }
}

function serve(name) {
    const server = http.createServer((request, response) => answer(name, request, response));
    servers.push(server);
    return server;
}

const server = how === "child" || how === "cluster" ? undefined : serve("first");
words.forEach((word) => WORDS[word]());
WAYS[how](server);
