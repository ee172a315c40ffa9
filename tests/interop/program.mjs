// One run of a program: how it ended and what it said.

import { spawn } from "node:child_process";

/** The end of a long text. */
export const tail = (text) => text.trimEnd().split("\n").slice(-30).join("\n");

/** Runs a program until it ends; after `timeout` ms it is killed, with whatever it has started. */
export function perform(path, words, { env, input = "", timeout }) {
    return new Promise((resolve) => {
        const began = Date.now();
        const child = spawn(path, words, { env, cwd: env.HOME, detached: true });
        const late = setTimeout(() => process.kill(-child.pid, "SIGKILL"), timeout);
        const said = { stdout: "", stderr: "" };
        for (const stream of ["stdout", "stderr"]) {
            child[stream].setEncoding("utf8").on("data", (text) => (said[stream] += text));
        }
        const ended = (code) => {
            clearTimeout(late);
            const ms = Date.now() - began;
            const texts = `--- stdout\n${tail(said.stdout)}\n--- stderr\n${tail(said.stderr)}`;
            resolve({ ...said, code, told: () => `${code} after ${ms} ms\n${texts}` });
        };
        child.once("error", (error) => ended(error.message));
        child.once("close", (code, signal) => ended(code ?? signal));
        // A program that reads nothing may be gone by now; its exit code tells what matters.
        child.stdin.on("error", () => {}).end(input);
    });
}
