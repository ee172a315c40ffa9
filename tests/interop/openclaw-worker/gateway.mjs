// OpenClaw's own gateway behind a front of its own: a private directory, a port that was free, and its own end.
//
// Only what was started here is ever ended, by its process id.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, open, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import { perform, tail } from "../program.mjs";

const TOKEN = "token-of-the-interop-tests";
/** It needs ten seconds when nothing else runs. */
const START_MS = 180_000;
const TAKEOVER_MS = 240_000;

/** What the gateway is told: loopback, one slow model, completions on. */
const config = (port, provider) => ({
    gateway: {
        mode: "local",
        port,
        bind: "loopback",
        auth: { mode: "token", token: TOKEN },
        http: { endpoints: { chatCompletions: { enabled: true } } },
    },
    discovery: { mdns: { mode: "off" } },
    update: { checkOnStart: false },
    models: {
        mode: "replace",
        providers: {
            local: {
                baseUrl: provider,
                apiKey: "none",
                api: "openai-completions",
                models: [{ id: "slow", name: "slow", contextWindow: 128_000, maxTokens: 4096 }],
            },
        },
    },
    agents: {
        defaults: { heartbeat: { every: "0m" }, skipBootstrap: true, model: { primary: "local/slow" } },
    },
});

async function freePort() {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address();
    server.close();
    await once(server, "close");
    return port;
}

export class Gateway {
    #child;
    #gone;
    #holdfast;

    /** Starts `holdfast run --profile openclaw -- openclaw gateway run`, and waits until it serves. */
    static async start(holdfast, program, provider, flags) {
        const gateway = new Gateway();
        gateway.#holdfast = holdfast;
        gateway.directory = await mkdtemp(join(tmpdir(), "holdfast-openclaw-"));
        gateway.port = await freePort();
        gateway.config = join(gateway.directory, "openclaw.json");
        await mkdir(join(gateway.directory, "bin"));
        // As a global installation has it: the command's name, found in PATH, by the Node that is found there.
        await symlink(program, join(gateway.directory, "bin", "openclaw"));
        await writeFile(gateway.config, JSON.stringify(config(gateway.port, provider)));
        const log = await open(join(gateway.directory, "log"), "w");
        const listen = ["--listen", `127.0.0.1:${gateway.port}`, "--listen", `[::1]:${gateway.port}`];
        const times = ["--ready-timeout", "2m", "--drain-timeout", "60s"];
        const words = ["run", "--profile", "openclaw", ...listen, ...times, ...flags];
        gateway.#child = spawn(holdfast, [...words, "--", "openclaw", "gateway", "run"], {
            cwd: gateway.directory,
            env: gateway.environment(),
            stdio: ["ignore", log.fd, log.fd],
        });
        gateway.#gone = once(gateway.#child, "close");
        await log.close();
        const deadline = Date.now() + START_MS;
        while ((await gateway.ask("healthcheck")).code !== 0) {
            if (Date.now() > deadline || gateway.#child.exitCode !== null) {
                const log = await gateway.log();
                await gateway.stop();
                throw new Error(`the gateway does not serve:\n${log}`);
            }
            await pause(200);
        }
        return gateway;
    }

    /** What its programs find in their environment: nothing of this user's own. */
    environment() {
        return {
            PATH: `${join(this.directory, "bin")}:${dirname(process.execPath)}:${process.env.PATH}`,
            HOME: this.directory,
            TMPDIR: this.directory,
            HOLDFAST_STATE_DIR: join(this.directory, "holdfast"),
            OPENCLAW_STATE_DIR: join(this.directory, "state"),
            OPENCLAW_CONFIG_PATH: this.config,
            OPENCLAW_SKIP_CHANNELS: "1",
            OPENCLAW_DISABLE_BONJOUR: "1",
        };
    }

    ask(...words) {
        return perform(this.#holdfast, words, { env: this.environment(), timeout: TAKEOVER_MS });
    }

    async status() {
        return JSON.parse((await this.ask("status", "--json")).stdout);
    }

    /** The front's own process, for signals. */
    signal(name) {
        this.#child.kill(name);
    }

    /** Waits until a status is as it should be. */
    async until(what, holds) {
        const deadline = Date.now() + TAKEOVER_MS;
        for (;;) {
            const status = await this.status();
            if (holds(status)) return status;
            if (Date.now() > deadline) throw new Error(`${what} did not come:\n${await this.log()}`);
            await pause(200);
        }
    }

    /** One takeover, to the end of its drain. */
    async takeover() {
        const run = await this.ask("takeover");
        if (run.code !== 0) throw new Error(`a takeover failed: exit code ${run.told()}\n${await this.log()}`);
    }

    /** Asks the model, and waits for the whole answer. */
    async chat(stream) {
        const response = await fetch(`http://127.0.0.1:${this.port}/v1/chat/completions`, {
            method: "POST",
            headers: { authorization: `Bearer ${TOKEN}`, "content-type": "application/json" },
            body: JSON.stringify({ model: "openclaw", stream, messages: [{ role: "user", content: "talk" }] }),
            signal: AbortSignal.timeout(TAKEOVER_MS),
        });
        const text = await response.text();
        if (response.status !== 200) throw new Error(`a chat is answered with ${response.status} ${text}`);
        if (!stream) return JSON.parse(text).choices[0].message.content.trim();
        const events = text.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
        if (events.pop() !== "[DONE]") throw new Error(`a stream has no end: ${tail(text)}`);
        return events.map((event) => JSON.parse(event).choices[0]?.delta?.content ?? "").join("").trim();
    }

    log() {
        return readFile(join(this.directory, "log"), "utf8").then(tail);
    }

    /** Ends the front and its gateway, and removes their directory. */
    async stop() {
        if (this.#child.exitCode === null && this.#child.signalCode === null) {
            this.signal("SIGTERM");
            const late = pause(30_000, "late", { ref: false });
            if ((await Promise.race([this.#gone, late])) === "late") this.signal("SIGKILL");
            await this.#gone;
        }
        await rm(this.directory, { recursive: true, force: true });
    }
}
