// Chromium without a window, spoken to over two pipes: JSON messages that end with a 0 (the DevTools protocol).

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

const FLAGS = ["--headless=new", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage", "--remote-debugging-pipe"];
const PATIENCE_MS = 30_000;

export class Browser {
    #child;
    #directory;
    #waiting = new Map();
    #next = 1;
    #listeners = [];

    static async start(program) {
        const browser = new Browser();
        browser.#directory = await mkdtemp(join(tmpdir(), "holdfast-page-"));
        // Root has no sandbox, and what is opened is our own.
        const words = [...FLAGS, ...(process.getuid() === 0 ? ["--no-sandbox"] : []), `--user-data-dir=${browser.#directory}`];
        const stdio = ["ignore", "ignore", "ignore", "pipe", "pipe"];
        browser.#child = spawn(program, words, { stdio, detached: true });
        let rest = "";
        browser.#child.stdio[4].setEncoding("utf8").on("data", (text) => {
            const messages = (rest + text).split("\0");
            rest = messages.pop();
            for (const message of messages) browser.#hear(JSON.parse(message));
        });
        return browser;
    }

    #hear(message) {
        const waiting = this.#waiting.get(message.id);
        this.#waiting.delete(message.id);
        if (message.error) waiting?.reject(new Error(message.error.message));
        else if (waiting) waiting.resolve(message.result);
        else for (const listener of this.#listeners) listener(message);
    }

    send(method, params = {}, sessionId = undefined) {
        const id = this.#next++;
        const answer = new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
        this.#child.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
        const late = pause(PATIENCE_MS, undefined, { ref: false }).then(() => {
            throw new Error(`the browser does not answer ${method}`);
        });
        return Promise.race([answer, late]);
    }

    /** A tab that notes whatever it asks for and complains of. */
    async tab() {
        const { targetId } = await this.send("Target.createTarget", { url: "about:blank" });
        const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
        const tab = new Tab((method, params) => this.send(method, params, sessionId));
        this.#listeners.push((message) => message.sessionId === sessionId && tab.hear(message));
        for (const domain of ["Page", "Runtime", "Log", "Network"]) await tab.send(`${domain}.enable`);
        return tab;
    }

    async stop() {
        const gone = new Promise((resolve) => this.#child.once("close", resolve));
        process.kill(-this.#child.pid, "SIGKILL");
        await gone;
        await rm(this.#directory, { recursive: true, force: true, maxRetries: 5 });
    }
}

class Tab {
    complaints = [];
    requests = [];

    constructor(send) {
        this.send = send;
    }

    hear({ method, params }) {
        if (method === "Network.requestWillBeSent") this.requests.push(params.request.url);
        if (method === "Log.entryAdded" && params.entry.level === "error") this.complaints.push(params.entry.text);
        if (method === "Runtime.exceptionThrown") this.complaints.push(params.exceptionDetails.text);
    }

    open(url) {
        return this.send("Page.navigate", { url });
    }

    /** What an expression is in the page. */
    async value(expression) {
        const { result, exceptionDetails } = await this.send("Runtime.evaluate", { expression, returnByValue: true });
        if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.text}`);
        return result.value;
    }

    /** The first value of an expression that is one. */
    async until(expression) {
        const deadline = Date.now() + PATIENCE_MS;
        for (;;) {
            // A page that is being loaded has none.
            const value = await this.value(expression).catch(() => undefined);
            if (value) return value;
            if (Date.now() > deadline) throw new Error(`never: ${expression}`);
            await pause(50);
        }
    }

    colours(scheme) {
        return this.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
    }

    size(width, height) {
        return this.send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: false });
    }

    async picture(height) {
        const clip = { x: 0, y: 0, width: await this.value("innerWidth"), height, scale: 1 };
        const { data } = await this.send("Page.captureScreenshot", { format: "png", clip, captureBeyondViewport: true });
        return Buffer.from(data, "base64");
    }
}
