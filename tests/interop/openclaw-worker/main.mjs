// OpenClaw's own gateway, unmodified, behind `holdfast run --profile openclaw`: nobody is refused while it is replaced.
//
// usage: node main.mjs HOLDFAST OPENCLAW_MJS

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";

import { Report } from "../report.mjs";
import { Gateway } from "./gateway.mjs";
import { Prober } from "./prober.mjs";
import { ANSWER, startProvider } from "./provider.mjs";

const [holdfast, program] = process.argv.slice(2);
const report = new Report();
const provider = await startProvider();

/** Has clients come at this pace while something happens, and says what became of them. */
async function underProbes(gateway, pace, play) {
    const prober = new Prober(gateway.port, pace);
    await play();
    await prober.stop();
    const { asked, refused, failures, longest } = prober;
    assert.equal(refused, 0, `${refused} of ${asked} connections were refused`);
    assert.deepEqual(failures, [], `${failures.length} of ${asked} failed`);
    const { crashes, takeovers } = await gateway.status();
    assert.equal(crashes, 0, "the gateway crashed");
    assert.equal(takeovers.rolled_back, 0, "a takeover was rolled back");
    return { note: `${asked} connections, 0 refused, 0 failed · longest wait ${longest} ms` };
}

/** A scene on a front of its own. */
async function scene(name, flags, play) {
    let gateway;
    const step = (what, work) => report.step(name, what, work);
    await step("starts", async () => {
        gateway = await Gateway.start(holdfast, program, provider.url, flags);
        return { note: "ready" };
    });
    if (!gateway) return;
    try {
        await play(gateway, step);
    } finally {
        await gateway.stop();
    }
}

/** Chats that take twenty seconds, and are whole in the end. */
async function chats(gateway) {
    const [stream, whole] = await Promise.all([gateway.chat(true), gateway.chat(false)]);
    assert.equal(stream, ANSWER, "the stream is complete");
    assert.equal(whole, ANSWER, "the answer is complete");
}

const committed = (count) => (status) => status.takeovers.committed >= count && status.generations.length === 1;

await scene("openclaw overlapping", [], async (gateway, step) => {
    await step("3 takeovers with a 20 s stream and a 20 s answer", () =>
        underProbes(gateway, 5, async () => {
            for (let takeover = 1; takeover <= 3; takeover += 1) {
                const talk = chats(gateway);
                // Asked before the takeover: it has the incumbent for its own.
                talk.catch(() => {});
                await gateway.takeover();
                await talk;
            }
        }),
    );
    await step("SIGUSR1 to the front", () =>
        underProbes(gateway, 5, async () => {
            gateway.signal("SIGUSR1");
            await gateway.until("the takeover", committed(4));
        }),
    );
    await step("it restarts itself for a change of its configuration", () =>
        underProbes(gateway, 5, async () => {
            const config = JSON.parse(await readFile(gateway.config, "utf8"));
            config.gateway.http.endpoints.responses = { enabled: true };
            await writeFile(gateway.config, JSON.stringify(config));
            await gateway.until("the takeover", committed(5));
        }),
    );
});

await scene("openclaw exclusive", ["--takeover-order", "stop-first"], async (gateway, step) => {
    await step("3 takeovers", () =>
        underProbes(gateway, 20, async () => {
            for (let takeover = 1; takeover <= 3; takeover += 1) await gateway.takeover();
        }),
    );
});

provider.stop();
process.exitCode = report.print() ? 0 : 1;
