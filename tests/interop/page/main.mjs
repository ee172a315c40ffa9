// The status page as a person sees it: it lives without being loaded again, tells of takeovers, and stays readable without a
// script, in the dark and on a telephone.
//
// usage: main.mjs HOLDFAST CHROMIUM [PICTURES]

import { readFile, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import { Front } from "../front.mjs";
import { perform } from "../program.mjs";
import { Report } from "../report.mjs";
import { Browser } from "./browser.mjs";

const [holdfast, chromium, pictures] = process.argv.slice(2);
/** As much as is seen of the page at first. */
const [WIDTH, HEIGHT] = [1060, 1180];
const LARGEST_PICTURE = 150 * 1024;

const assert = (holds, what) => {
    if (!holds) throw new Error(what);
};

/** Clients who have said something and stay: what is moved is seen then. */
const [BROWSERS, SOCKETS] = [24, 8];
const UPGRADE = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";

function clients(port) {
    const client = (path, more) => {
        const socket = connect(port, "127.0.0.1");
        socket.on("error", () => {}).on("data", () => {});
        socket.write(`GET ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\n${more}\r\n`);
        return socket;
    };
    const browsers = Array.from({ length: BROWSERS }, () => client("/healthz", ""));
    return [...browsers, ...Array.from({ length: SOCKETS }, () => client("/", UPGRADE))];
}

/** Where the front says that its page is. */
async function addressOf(front) {
    const log = await readFile(join(front.directory, "log"), "utf8");
    return log.match(/^status page: (http:\S+)$/m)[1];
}

const report = new Report();
const front = await Front.start(holdfast, async () => {}, ["--admin", "127.0.0.1:0"]);
const open = clients(front.port);
const browser = await Browser.start(chromium);
const ask = async (...words) => {
    const run = await perform(holdfast, words, { env: front.environment(), timeout: 60_000 });
    assert(run.code === 0 || words.includes("false"), `${words.join(" ")}: ${run.told()}`);
};
try {
    const url = await addressOf(front);
    const tab = await browser.tab();
    await tab.size(WIDTH, HEIGHT);
    await tab.open(url);

    await report.step("page", "it lives without being loaded again", async () => {
        await tab.until("document.body.dataset.feed === 'live'");
        await tab.value("window.mark = 1");
        const before = await tab.value("document.querySelector('#front').textContent");
        await tab.until(`document.querySelector('#front').textContent !== ${JSON.stringify(before)}`);
        assert((await tab.value("window.mark")) === 1, "it was loaded again");
        return { note: before };
    });

    await report.step("page", "it tells of takeovers, and of one that is rolled back", async () => {
        for (let takeover = 0; takeover < 3; takeover += 1) {
            await ask("takeover");
            await pause(1500);
        }
        await ask("takeover", "--", "false");
        const words = "document.querySelector('#takeovers').textContent";
        await tab.until(`${words}.includes('g3 → g4') && ${words}.includes('rolled back')`);
        await tab.until("document.querySelector('#verdict').textContent.includes('g4 serves')");
        await ask("takeover");
        await tab.until("document.querySelector('#verdict').textContent.startsWith('g6 serves')");
        const bars = await tab.until("document.querySelectorAll('#picture rect.serving').length");
        return { note: `${bars} bars of service` };
    });

    await report.step("page", "every section, the picture and each column have a name", async () => {
        await tab.send("Accessibility.enable");
        const { nodes } = await tab.send("Accessibility.getFullAXTree");
        const named = (role) => nodes.filter((node) => node.role?.value === role && !node.ignored).map((node) => node.name?.value);
        const regions = named("region");
        assert(regions.length === 5 && regions.every(Boolean), `regions: ${regions}`);
        const images = [...named("image"), ...named("img"), ...named("graphics-document")];
        assert(images.some((name) => name?.includes("g6 has been serving")), `pictures: ${images}`);
        assert(named("columnheader").every(Boolean), "a column has no name");
        return { note: regions.join(", ") };
    });

    const seen = {};
    for (const scheme of ["light", "dark"]) {
        await report.step("page", `it is drawn in ${scheme} colours`, async () => {
            await tab.colours(scheme);
            seen[scheme] = await tab.value("getComputedStyle(document.body).backgroundColor");
            assert(seen.light !== seen.dark, `both are ${seen.dark}`);
            const picture = await tab.picture(HEIGHT);
            assert(picture.length < LARGEST_PICTURE, `the picture has ${picture.length} bytes`);
            if (pictures) await writeFile(join(pictures, `page-${scheme}.png`), picture);
            return { note: `${seen[scheme]}, ${picture.length} bytes` };
        });
    }

    await report.step("page", "on a telephone only tables are wider than the screen", async () => {
        await tab.size(390, 844);
        const width = await tab.value("document.documentElement.scrollWidth");
        assert(width <= 390, `it is ${width} wide`);
        await tab.size(WIDTH, HEIGHT);
        return { note: `${width} px` };
    });

    await report.step("page", "it goes on when the front renews itself", async () => {
        await ask("reexec");
        const words = "document.querySelector('#events').textContent";
        await tab.until(`document.body.dataset.feed === 'live' && ${words}.includes('renewed')`);
        assert((await tab.value("window.mark")) === 1, "it was loaded again");
        return { note: "not loaded again" };
    });

    await report.step("page", "it asks nobody else, and its rules are kept", async () => {
        const others = tab.requests.filter((request) => !request.startsWith(url) && !request.startsWith("data:"));
        assert(others.length === 0, `it asked ${others}`);
        // The stream that the renewed front has ended.
        const complaints = tab.complaints.filter((words) => !words.includes("ERR_"));
        assert(complaints.length === 0, complaints.join("\n"));
        return { note: `${tab.requests.length} requests` };
    });

    await report.step("page", "it is readable without a script, and comes again by itself", async () => {
        const plain = await browser.tab();
        await plain.send("Emulation.setScriptExecutionDisabled", { value: true });
        await plain.open(url);
        await plain.until("document.querySelector('#verdict')?.textContent.includes('g6 serves')");
        await plain.until("document.querySelectorAll('#generations tbody tr').length === 1");
        const before = await plain.value("document.querySelector('#front').textContent");
        await plain.until(`document.querySelector('#front')?.textContent > '' && document.querySelector('#front').textContent !== ${JSON.stringify(before)}`);
        return { note: "loaded again" };
    });

    await report.step("page", "it says so when the front is gone", async () => {
        await front.stop();
        await tab.until("document.body.dataset.feed === 'lost' && document.querySelector('#feed').textContent");
        return { note: await tab.value("document.querySelector('#feed').textContent") };
    });
} finally {
    for (const client of open) client.destroy();
    await browser.stop();
    await front.stop();
}
process.exitCode = report.print() ? 0 : 1;
