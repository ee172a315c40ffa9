// A client of the gateway's WebSocket protocol that has only what Node comes with.
//
// It keeps count of what must not happen: a close that it did not ask for, and a gap in the events' numbers.

import assert from "node:assert/strict";
import { createHash, generateKeyPairSync, randomUUID, sign } from "node:crypto";

import { TOKEN } from "./front.mjs";

const ANSWER_MS = 10_000;

/** The same promise, but no later than in 10 s. */
function inTime(promise, what) {
    const { promise: late, reject } = Promise.withResolvers();
    const timer = setTimeout(() => reject(new Error(`${what} did not come`)), ANSWER_MS);
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** A device with a key of its own. */
export class Device {
    #keys = generateKeyPairSync("ed25519");
    publicKey = this.#keys.publicKey.export({ format: "jwk" }).x;
    id = createHash("sha256").update(Buffer.from(this.publicKey, "base64url")).digest("hex");

    /** Its proof that it asks for these scopes on the connection with this nonce. */
    signed({ client, role, scopes, nonce }) {
        const signedAt = Date.now();
        const words = ["v3", this.id, client.id, client.mode, role, scopes.join(","), signedAt, TOKEN];
        const text = [...words, nonce, client.platform, ""].join("|");
        const signature = sign(null, Buffer.from(text), this.#keys.privateKey).toString("base64url");
        return { id: this.id, publicKey: this.publicKey, signature, signedAt, nonce };
    }
}

export class Client {
    #closing = false;
    #seq = 0;
    #socket;
    #waiting = new Map();
    #finals = new Map();
    /** What must not have happened, in words. */
    faults = [];
    events = 0;

    /** Connects; with a device as the command line would, without one as a backend does. */
    static async connect(port, { scopes, device }) {
        const client = new Client();
        client.#socket = new WebSocket(`ws://127.0.0.1:${port}/`);
        const nonce = await inTime(client.#challenge(), "a challenge");
        const [id, mode] = device ? ["cli", "cli"] : ["gateway-client", "backend"];
        const claim = { client: { id, version: "1", platform: "linux", mode }, role: "operator", scopes };
        await client.call("connect", {
            minProtocol: 4,
            maxProtocol: 4,
            caps: [],
            auth: { token: TOKEN },
            ...claim,
            ...(device && { device: device.signed({ ...claim, nonce }) }),
        });
        return client;
    }

    #challenge() {
        const { promise, resolve, reject } = Promise.withResolvers();
        this.#socket.addEventListener("message", ({ data }) => {
            const frame = JSON.parse(data);
            if (frame.event === "connect.challenge") {
                resolve(frame.payload.nonce);
            } else {
                this.#heard(frame);
            }
        });
        this.#socket.addEventListener("close", ({ code, reason }) => {
            const fault = `the connection was closed: ${code} ${reason}`;
            if (!this.#closing) {
                this.faults.push(fault);
            }
            reject(new Error(fault));
            this.#waiting.forEach((call) => call.reject(new Error(fault)));
        });
        return promise;
    }

    #heard(frame) {
        if (frame.type === "res") {
            const call = this.#waiting.get(frame.id);
            if (!call) {
                this.faults.push(`an answer to nothing, or a second one: ${JSON.stringify(frame)}`);
            } else if (frame.ok) {
                call.resolve(frame.payload);
            } else {
                call.reject(Object.assign(new Error(frame.error.message), { answer: frame.error }));
            }
            this.#waiting.delete(frame.id);
        } else {
            this.events += 1;
            this.#seq += 1;
            if (frame.seq !== this.#seq) {
                this.faults.push(`event ${frame.event} is number ${frame.seq}, not ${this.#seq}`);
                this.#seq = frame.seq;
            }
            if (frame.event === "chat" && frame.payload.state !== "delta") {
                this.#ended(frame.payload);
            }
        }
    }

    #ended({ runId, state, message }) {
        const final = this.#final(runId);
        if (final.told) {
            this.faults.push(`the end of ${runId} was told twice`);
        }
        final.told = true;
        final.resolve(state === "final" ? message.content[0].text : state);
    }

    #final(run) {
        this.#finals.set(run, this.#finals.get(run) ?? Promise.withResolvers());
        return this.#finals.get(run);
    }

    /** What a run of `chat.send` came to, as the events tell. */
    answerOf(run) {
        return inTime(this.#final(run).promise, `the end of ${run}`);
    }

    /** Calls a method; its payload. */
    call(method, params) {
        const id = randomUUID();
        const { promise, resolve, reject } = Promise.withResolvers();
        this.#waiting.set(id, { resolve, reject });
        this.#socket.send(JSON.stringify({ type: "req", id, method, params }));
        return inTime(promise, `an answer to ${method}`);
    }

    /** Closes it; throws when anything happened that must not. */
    close() {
        this.#closing = true;
        this.#socket.close();
        assert.deepEqual(this.faults, []);
    }
}
