// What was tried, and what came of it: a line for each step as it ends, and a table of all in the end.

/** A step that fits into a table. */
const short = (what) => (what.length > 72 ? `${what.slice(0, 71)}…` : what);

export class Report {
    #rows = [];
    #failures = [];

    /** Does one thing and notes how it went; what it returned, or `undefined` when it failed. */
    async step(scene, what, work) {
        const began = Date.now();
        try {
            const { note, value } = await work();
            this.#row("ok", scene, what, note, began);
            return value;
        } catch (error) {
            this.#row("FAILED", scene, what, "see above", began);
            this.#failures.push(what);
            console.error(`\nFAILED: ${scene}: ${what}\n${error.stack}\n`);
            return undefined;
        }
    }

    #row(outcome, scene, what, note, began) {
        this.#rows.push([outcome, scene, short(what), `${Date.now() - began} ms`, note]);
        console.log(`${outcome.padEnd(6)} ${scene}: ${short(what)}`);
    }

    /** Prints the table; whether nothing failed. */
    print() {
        const rows = this.#rows.toSorted(([, one], [, other]) => one.localeCompare(other));
        const widths = [0, 1, 2, 3].map((column) => Math.max(...rows.map((row) => row[column].length)));
        console.log("");
        for (const row of rows) {
            console.log(row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  "));
        }
        const failed = this.#failures.length;
        console.log(`\n${rows.length - failed} passed, ${failed} failed`);
        return failed === 0;
    }
}
