// A front of its own for each scene: a private directory, an ephemeral port, and takeovers once a second.
//
// Only what was started here is ever ended, by its process id.

import { spawn } from "node:child_process";
import { mkdtemp, open, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import { perform, tail } from "./program.mjs";

export const TOKEN = "token-of-the-interop-tests";
const BETWEEN_TAKEOVERS_MS = 1000;
const START_MS = 15_000;

export class Front {
    #child;
    #gone;
    #holdfast;
    #over = false;
    #takeovers;

    /** Starts `holdfast run` with these words on a state directory that `prepare` has seen, and waits until it serves. */
    static async start(holdfast, prepare, words = []) {
        const front = new Front();
        front.#holdfast = holdfast;
        front.directory = await mkdtemp(join(tmpdir(), "holdfast-interop-"));
        front.state = join(front.directory, "state");
        await prepare(front.state);
        const log = await open(join(front.directory, "log"), "w");
        const where = words.includes("--listen") ? [] : ["--listen", "127.0.0.1:0"];
        front.#child = spawn(holdfast, ["run", "--soak", "100ms", ...where, ...words], {
            cwd: front.directory,
            env: front.environment(),
            stdio: ["ignore", log.fd, log.fd],
        });
        front.#gone = new Promise((gone) => front.#child.once("close", gone));
        await log.close();
        const deadline = Date.now() + START_MS;
        while ((await front.#ask("healthcheck")).code !== 0) {
            if (Date.now() > deadline || front.#child.exitCode !== null) {
                const log = await front.log();
                await front.stop();
                throw new Error(`holdfast run did not serve:\n${log}`);
            }
            await pause(50);
        }
        const address = (await front.status()).listeners[0].address;
        front.port = Number(address.slice(address.lastIndexOf(":") + 1));
        return front;
    }

    /** What its programs find in their environment: nothing of this user's own. */
    environment() {
        return {
            PATH: process.env.PATH,
            HOME: this.directory,
            TMPDIR: this.directory,
            HOLDFAST_STATE_DIR: this.state,
            OPENCLAW_GATEWAY_TOKEN: TOKEN,
        };
    }

    #ask(...words) {
        return perform(this.#holdfast, words, { env: this.environment(), timeout: 60_000 });
    }

    async status() {
        return JSON.parse((await this.#ask("status", "--json")).stdout);
    }

    log() {
        return readFile(join(this.directory, "log"), "utf8").then(tail);
    }

    /** Replaces the worker every second until `calm`. */
    beginTakeovers() {
        this.#takeovers = (async () => {
            let [count, moved] = [0, 0];
            for (; !this.#over; count += 1) {
                const next = pause(BETWEEN_TAKEOVERS_MS);
                moved += await this.#takeover();
                await next;
            }
            return { count, moved };
        })();
        // It is looked at in `calm`; until then a failure is nobody's unhandled rejection.
        this.#takeovers.catch(() => {});
    }

    /** One takeover; how many connections it moved. Throws when one was closed or cut. */
    async #takeover() {
        const run = await this.#ask("takeover", "--json");
        const phases = run.stdout.trim().split("\n").map((line) => JSON.parse(line));
        const drained = phases.find((phase) => phase.event === "drained");
        const total = (connections) => connections.http + connections.websocket;
        if (run.code !== 0 || !drained || total(drained.closed) + total(drained.cut) > 0) {
            throw new Error(`a takeover failed, or failed its clients: exit code ${run.told()}`);
        }
        return total(drained.moved);
    }

    /** Ends the takeovers; how many there were, by the front's own account, and what they moved. */
    async calm() {
        this.#over = true;
        const { count, moved } = await this.#takeovers;
        const { takeovers, crashes } = await this.status();
        if (takeovers.committed < count || takeovers.rolled_back !== 0 || crashes !== 0) {
            throw new Error(`${count} takeovers, but ${JSON.stringify({ takeovers, crashes })}`);
        }
        return { committed: takeovers.committed, moved };
    }

    /** Ends the front and its workers, and removes their directory. */
    async stop() {
        this.#over = true;
        await this.#takeovers?.catch(() => {});
        if (this.#child.exitCode === null && this.#child.signalCode === null) {
            this.#child.kill("SIGTERM");
            const late = pause(10_000, "late", { ref: false });
            if ((await Promise.race([this.#gone, late])) === "late") {
                this.#child.kill("SIGKILL");
            }
            await this.#gone;
        }
        await rm(this.directory, { recursive: true, force: true });
    }
}
