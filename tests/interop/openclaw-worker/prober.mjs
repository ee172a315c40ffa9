// Clients that come at a steady pace, each with a connection of its own that asks one thing: none of them retries.

import { connect } from "node:net";

const REQUEST = "GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n";
/** A client that waits longer has been failed. */
const PATIENCE_MS = 90_000;

export class Prober {
    #timer;
    #open = 0;
    #idle = () => {};
    asked = 0;
    refused = 0;
    failures = [];
    longest = 0;

    /** Comes every `pace` ms. A timer that comes late makes up for it. */
    constructor(port, pace) {
        const began = Date.now();
        this.#timer = setInterval(() => {
            while (this.asked < (Date.now() - began) / pace) this.#ask(port);
        }, pace);
    }

    #ask(port) {
        this.asked += 1;
        this.#open += 1;
        const began = Date.now();
        let answer = "";
        const socket = connect(port, "127.0.0.1", () => socket.write(REQUEST));
        socket.setEncoding("utf8").on("data", (text) => (answer += text));
        socket.setTimeout(PATIENCE_MS, () => socket.destroy(new Error("no answer in time")));
        let failure;
        socket.once("error", (error) => (failure = error.code ?? error.message));
        socket.once("close", () => {
            this.longest = Math.max(this.longest, Date.now() - began);
            if (failure === "ECONNREFUSED") this.refused += 1;
            if (failure || !answer.startsWith("HTTP/1.1 200")) {
                this.failures.push(failure ?? `answered ${JSON.stringify(answer.slice(0, 60))}`);
            }
            this.#open -= 1;
            if (this.#open === 0) this.#idle();
        });
    }

    /** Comes no more, and waits for the last answer. */
    async stop() {
        clearInterval(this.#timer);
        if (this.#open > 0) await new Promise((idle) => (this.#idle = idle));
    }
}
