// OpenClaw's own command line against a gateway that is replaced every second: each call has to exit 0 and to have
// done what it says.
//
// The first call asks for an administrator's scopes, so that the device is paired with them: later calls ask for
// fewer, and more would have to be approved first, as with the gateway it was written for.

import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { Client, Device } from "./client.mjs";
import { perform } from "./program.mjs";

const CALL_MS = 60_000;
/** How often a run that was begun is looked for. */
const LOOKS = 5;

/** What has to be there before the worker starts. */
export async function prepare(state) {
    await mkdir(state, { recursive: true, mode: 0o700 });
    const config = { gateway: { mode: "local" }, logging: { file: join(state, "openclaw.log") } };
    await writeFile(join(state, "openclaw.json"), JSON.stringify(config));
}

class CommandLine {
    constructor(front, report, node, program, version) {
        Object.assign(this, { front, report, node, program, scene: `openclaw ${version}` });
    }

    /** One call. What it prints is given to `check`, parsed when it is JSON; so is what is returned. */
    call(words, check = () => {}, input = "") {
        return this.report.step(this.scene, words.join(" "), () => this.#attempt(words, check, input));
    }

    async #attempt(words, check, input) {
        const env = {
            ...this.front.environment(),
            OPENCLAW_STATE_DIR: this.front.state,
            OPENCLAW_CONFIG_PATH: join(this.front.state, "openclaw.json"),
            OPENCLAW_GATEWAY_PORT: String(this.front.port),
            // Its plugins would install packages of their own at the first call.
            OPENCLAW_DISABLE_BUNDLED_PLUGINS: "1",
            OPENCLAW_DISABLE_BONJOUR: "1",
            OPENCLAW_SKIP_CHANNELS: "1",
            NO_COLOR: "1",
        };
        const run = await perform(this.node, [this.program, ...words], { env, input, timeout: CALL_MS });
        if (run.code !== 0) {
            throw new Error(`exit code ${run.told()}\n--- front and workers\n${await this.front.log()}`);
        }
        try {
            const value = /^\s*[[{]/.test(run.stdout) ? JSON.parse(run.stdout) : run.stdout.trim();
            check(value);
            return { note: "exit 0", value };
        } catch (error) {
            throw new Error(`${error.message}\nexit code ${run.told()}`, { cause: error });
        }
    }

    /** The same call until it prints what is looked for. */
    callUntil(words, check) {
        return this.report.step(this.scene, words.join(" "), async () => {
            for (let look = 1; ; look += 1) {
                try {
                    return await this.#attempt(words, check, "");
                } catch (error) {
                    if (look === LOOKS || !error.cause) {
                        throw error;
                    }
                }
            }
        });
    }
}

const has = (list, key, value) => assert(list.some((item) => item[key] === value), `${value} is there`);
const lacks = (list, key, value) => assert(list.every((item) => item[key] !== value), `${value} is gone`);

async function jobs(cli) {
    const every = ["--name", "hourly", "--every", "1h"];
    const what = ["--session", "isolated", "--message", "hello of a job", "--no-deliver"];
    const added = await cli.call(["cron", "add", ...every, ...what, "--json"], (job) => {
        assert.equal(job.name, "hourly");
        assert.equal(job.schedule.everyMs, 3_600_000);
    });
    const id = added?.id ?? "none";
    await cli.call(["cron", "list"], (text) => assert(text.includes(id)));
    await cli.call(["cron", "list", "--json"], ({ jobs }) => has(jobs, "id", id));
    await cli.call(["cron", "edit", id, "--name", "often"]);
    await cli.call(["cron", "list", "--json"], ({ jobs }) => has(jobs, "name", "often"));
    await cli.call(["cron", "status"], ({ enabled, jobs }) => assert.deepEqual([enabled, jobs], [true, 1]));
    const ran = await cli.call(["cron", "run", id], ({ ok }) => assert.equal(ok, true));
    await cli.callUntil(["cron", "runs", "--id", id], ({ entries }) => {
        const run = entries.find((entry) => entry.runId === ran?.runId);
        assert.equal(run?.status, "ok");
        assert.equal(run?.summary, "hello of a job");
    });
    await cli.call(["cron", "rm", id], ({ removed }) => assert.equal(removed, true));
    await cli.call(["cron", "list", "--json"], ({ jobs }) => lacks(jobs, "id", id));
}

async function agents(cli) {
    const workspace = (name) => join(cli.front.directory, "workspaces", name);
    const add = ["agents", "add", "scout", "--workspace", workspace("scout"), "--non-interactive", "--json"];
    await cli.call(add, ({ agentId }) => assert.equal(agentId, "scout"));
    await cli.call(["agents", "list"], (text) => assert(text.includes("scout")));
    await cli.call(["agents", "list", "--json"], (list) => has(list, "id", "scout"));
    await cli.call(["gateway", "call", "agents.list", "--json"], ({ agents }) => has(agents, "id", "scout"));
    await cli.call(["agent", "--agent", "scout", "--message", "hello scout", "--json"], (answer) => {
        // Without the gateway it would run the agent by itself.
        assert.equal(answer.status, "ok");
        assert.equal(answer.result.payloads[0].text, "hello scout");
    });
    const ranger = JSON.stringify({ name: "ranger", workspace: workspace("ranger") });
    const create = ["gateway", "call", "agents.create", "--json", "--params", ranger];
    await cli.call(create, ({ agentId }) => assert.equal(agentId, "ranger"));
    await cli.call(["agents", "list", "--json"], (list) => has(list, "id", "ranger"));
    await cli.call(["agents", "delete", "scout", "--force", "--json"]);
    await cli.call(["gateway", "call", "agents.list", "--json"], ({ agents }) => lacks(agents, "id", "scout"));
}

async function config(cli, canPatch) {
    await cli.call(["config", "get", "gateway.mode"], (mode) => assert.equal(mode, "local"));
    if (canPatch) {
        const patch = '{ tools: { profile: "coding" } }';
        await cli.call(["config", "patch", "--stdin"], undefined, patch);
    } else {
        await cli.call(["config", "set", "tools.profile", "coding"]);
    }
    await cli.call(["config", "get", "tools.profile"], (profile) => assert.equal(profile, "coding"));
    const read = await cli.call(["gateway", "call", "config.get", "--json"], (config) =>
        assert.equal(config.parsed.tools.profile, "coding"),
    );
    const raw = '{ "tools": { "profile": "full" } }';
    const params = JSON.stringify({ raw, baseHash: read?.hash });
    await cli.call(["gateway", "call", "config.patch", "--json", "--params", params]);
    await cli.call(["config", "get", "tools.profile"], (profile) => assert.equal(profile, "full"));
}

async function gateway(cli) {
    await cli.call(["health"]);
    await cli.call(["health", "--json"], ({ ok }) => assert.equal(ok, true));
    await cli.call(["status"], (text) => assert.match(text, / reachable/));
    await cli.call(["status", "--json"], ({ gateway }) => assert.equal(gateway.reachable, true));
    await cli.call(["gateway", "status"], (text) => assert.match(text, /Connectivity probe: ok/));
    const status = ["gateway", "status", "--require-rpc", "--json"];
    await cli.call(status, ({ rpc }) => assert.equal(rpc.ok, true));
    await cli.call(["gateway", "probe"], (text) => assert.match(text, /Reachable: yes/));
    await cli.call(["gateway", "probe", "--json"], ({ ok, degraded, targets }) => {
        assert.deepEqual([ok, degraded], [true, false]);
        assert.equal(targets[0].connect.rpcOk, true);
    });
    await cli.call(["gateway", "health"]);
    await cli.call(["gateway", "call", "health", "--json"], ({ ok }) => assert.equal(ok, true));
    await cli.call(["gateway", "call", "status", "--json"], ({ sessions }) => assert(sessions));
    await cli.call(["gateway", "call", "system-presence", "--json"], (list) => has(list, "mode", "gateway"));
    // A worker that has just begun may have nothing to tell yet.
    await cli.call(["logs", "--limit", "5"], (text) => assert.match(text, /^Log file: holdfast-worker/));
}

/** A device that came with few scopes asks for more: somebody has to look at that. */
async function asksForMore(cli, device) {
    const client = await Client.connect(cli.front.port, { scopes: ["operator.read"], device });
    client.close();
    const asks = Client.connect(cli.front.port, { scopes: ["operator.admin"], device });
    await assert.rejects(asks, { message: /pairing required/ });
    return { note: "waits for an approval" };
}

async function devices(cli) {
    const device = new Device();
    await cli.report.step(cli.scene, "(another device asks for more scopes)", () => asksForMore(cli, device));
    await cli.call(["devices", "list"], (text) => assert.match(text, /Pending \(1\)/));
    const listed = await cli.call(["devices", "list", "--json"], ({ pending, paired }) => {
        has(pending, "deviceId", device.id);
        has(paired, "deviceId", device.id);
    });
    const request = listed?.pending.find((pending) => pending.deviceId === device.id);
    await cli.call(["devices", "approve", request?.requestId ?? "none", "--json"]);
    await cli.call(["devices", "list", "--json"], ({ pending, paired }) => {
        lacks(pending, "deviceId", device.id);
        has(paired, "deviceId", device.id);
    });
    await cli.report.step(cli.scene, "(the other device has them)", async () => {
        const client = await Client.connect(cli.front.port, { scopes: ["operator.admin"], device });
        await client.call("config.schema", {});
        client.close();
        return { note: "and uses them" };
    });
    await cli.call(["devices", "remove", device.id, "--json"]);
    await cli.call(["devices", "list", "--json"], ({ paired }) => lacks(paired, "deviceId", device.id));
}

export async function commandLine(front, report, { node, program, version, canPatch }) {
    const cli = new CommandLine(front, report, node, program, version);
    await jobs(cli);
    await gateway(cli);
    await agents(cli);
    await config(cli, canPatch);
    await devices(cli);
}
