// What Holdfast has a Node program load first, so that it accepts from the front's sockets.
//
//   server.listen(18789, "127.0.0.1")          the program says so, and believes it
//        │
//        ├─► listens on a private port           readiness is asked there, address() says 18789
//        └─► told to accept: takes connections   from the shared socket of that port, and has the server treat
//                                                them as its own
//
// Words to the adapter and from it are lines on an inherited socket (channel.rs lists them).
//
// Invariants
// - Nothing is accepted before the adapter says so, nor after it says otherwise.
// - Every other port, every path, descriptor and handle is listened on as if this file were not there.
// - What the program starts does not inherit any of this: the variables go here, and Node itself has marked the
//   descriptors close-on-exec.
"use strict";

const fs = require("node:fs");
const net = require("node:net");

const listen = net.Server.prototype.listen;
const close = net.Server.prototype.close;

/** Where the program listens instead. */
const LOOPBACK = { IPv4: "127.0.0.1", IPv6: "::1" };

/** How often is looked whether the program's one thread is free, and how late that may be, in ms. */
const TICK = { every: 100, latest: 600, calm: 4 };

/** A listening socket of the front, in several copies: Node can stop accepting only by closing one. */
class SharedSocket {
    #acceptor;
    #copies;
    #backlog;

    constructor({ ip, family, port, descriptors }, backlog) {
        [this.ip, this.family, this.port] = [ip, family, port];
        this.#copies = descriptors;
        this.#backlog = backlog;
    }

    get accepts() {
        return this.#acceptor !== undefined;
    }

    /** Accepts, and gives each connection to the server that `choose` names then. */
    accept(choose) {
        if (this.accepts || this.#copies.length === 0) return;
        const acceptor = net.createServer();
        // A backlog of Node's own, 511, would count for everybody who shares the socket (listen(2)).
        listen.call(acceptor, { fd: this.#copies.shift() }, this.#backlog);
        // The private server's own way of accepting: limits, options and counting are the server's, and it emits
        // `connection`. Without a server the connection is nobody's.
        acceptor._handle.onconnection = (error, connection) => {
            const handle = choose()?._handle;
            if (handle) handle.onconnection(error, connection);
            else connection?.close();
        };
        // Whether the process lives on is the private server's to say.
        acceptor.unref();
        this.#acceptor = acceptor;
    }

    /** Stops accepting, as long as it can begin again: with the last copy the adapter's word is enough. */
    pause() {
        if (this.#copies.length > 0) this.#shut();
    }

    /** Stops accepting for good, so that a port which the front has closed is closed. */
    leave() {
        this.#shut();
        this.#copies.splice(0).forEach((copy) => fs.closeSync(copy));
    }

    #shut() {
        if (this.#acceptor) close.call(this.#acceptor);
        this.#acceptor = undefined;
    }

    /** How well a server that was told to listen at `host` fits; 0 is not at all. */
    fit({ port, host, ipv6Only }) {
        if (port !== this.port) return 0;
        if (host === this.ip) return 5;
        if (host === "0.0.0.0" && this.family === "IPv4") return 4;
        if (host === "::" && (this.family === "IPv6" || !ipv6Only)) return 3;
        // Another address of the same machine: where clients come in is the front's to say.
        return net.isIP(host) === (this.family === "IPv6" ? 6 : 4) || host === "localhost" ? 2 : 1;
    }
}

/** The adapter's end of the conversation. */
class Channel {
    #socket;

    /** `heed` gets each of its orders, a list of words. */
    constructor(descriptor, heed) {
        this.#socket = new net.Socket({ fd: descriptor, readable: true, writable: true });
        this.#socket.unref();
        this.#socket.setEncoding("utf8");
        // Without the adapter this process ends anyway.
        this.#socket.on("error", () => {});
        let unfinished = "";
        this.#socket.on("data", (text) => {
            const lines = (unfinished + text).split("\n");
            unfinished = lines.pop();
            lines.forEach((line) => heed(line.split(" ")));
        });
    }

    say(...words) {
        this.#socket.write(`${words.join(" ")}\n`);
    }
}

/** All of it. */
class Preload {
    #setup;
    #sockets;
    #channel;
    /** What was told to listen on a port of the front's: each server with where. */
    #servers = new Map();
    #order = "wait";
    #watch;
    #said = "stopped";

    constructor(setup) {
        this.#setup = setup;
        this.#sockets = setup.sockets.map((socket) => new SharedSocket(socket, setup.backlog));
    }

    install() {
        const preload = this;
        net.Server.prototype.listen = function (...words) {
            const wanted = this.listening ? undefined : read(words);
            return wanted && preload.#isFronted(wanted.port)
                ? preload.#listen(this, wanted)
                : listen.apply(this, words);
        };
        net.Server.prototype.close = function (...words) {
            preload.#forget(this);
            return close.apply(this, words);
        };
        const { emit } = process;
        process.emit = function (name, ...words) {
            return preload.#keepsFromRestarting(name) || emit.call(this, name, ...words);
        };
    }

    #isFronted(port) {
        return this.#sockets.some((socket) => socket.port === port);
    }

    /** The first time there is something to say: a program before this one may have said nothing. */
    #say(...words) {
        this.#channel ??= new Channel(this.#setup.channel, (order) => this.#heed(order));
        this.#channel.say(...words);
    }

    #listen(server, { port, host, options, callback }) {
        if (new Error().stack.includes("node:internal/cluster")) {
            this.#say("refuse", "it listens by cluster workers, which --adapter node cannot give the port to: start one",
                "process (as many as are wanted by other means), or use --adapter relay");
            return server;
        }
        const family = net.isIPv6(host) && host !== "::" ? "IPv6" : "IPv4";
        const address = () => this.#addressOf(server, { port, host });
        // An own property: whoever asks this server is told what it was told to do.
        Object.defineProperty(server, "address", { value: address, configurable: true, writable: true });
        server.prependOnceListener("listening", () => {
            const { address, port: place } = privateAddress(server);
            this.#servers.set(server, { port, host, ipv6Only: options.ipv6Only === true });
            this.#say("listening", port, `${family === "IPv6" ? `[${address}]` : address}:${place}`);
            this.#settle();
            this.#watch ??= this.#watchCalm();
        });
        const place = { ...options, port: 0, host: LOOPBACK[family], ipv6Only: false, reusePort: false };
        return callback ? listen.call(server, place, callback) : listen.call(server, place);
    }

    /** Until it accepts: says when the program is through with its start. One that is not would have clients wait. */
    #watchCalm() {
        let [punctual, last] = [0, performance.now()];
        const watch = setInterval(() => {
            const now = performance.now();
            const late = now - last > TICK.latest;
            if (late && punctual >= TICK.calm) this.#say("busy");
            punctual = late ? 0 : punctual + 1;
            last = now;
            if (punctual === TICK.calm) this.#say("calm");
            if (this.#order !== "wait") clearInterval(watch);
        }, TICK.every);
        return watch.unref();
    }

    /** The public address, in the private one's place. */
    #addressOf(server, { port, host }) {
        const own = privateAddress(server);
        if (!own) return own;
        const address = net.isIP(host) ? host : own.address;
        return { address, family: net.isIPv6(address) ? "IPv6" : "IPv4", port };
    }

    /** A server that is closed is given no more connections; they wait for another one. */
    #forget(server) {
        const place = this.#servers.get(server);
        if (!place) return;
        this.#servers.delete(server);
        delete server.address;
        const left = [...this.#servers.values()].some(({ port }) => port === place.port);
        if (!left && this.#order === "accept") this.#say("closed", place.port);
        this.#settle();
    }

    /** The server that fits a socket best. */
    #serverFor(socket) {
        let [best, found] = [0, undefined];
        for (const [server, place] of this.#servers) {
            const fit = socket.fit(place);
            if (server.listening && fit > best) [best, found] = [fit, server];
        }
        return found;
    }

    /** Has every socket do what was ordered, and says so once it does. */
    #settle() {
        for (const socket of this.#sockets) {
            if (this.#order === "leave") socket.leave();
            else if (this.#order === "accept" && this.#serverFor(socket)) socket.accept(() => this.#serverFor(socket));
            else socket.pause();
        }
        const accepts = this.#order === "accept" && this.#sockets.every((socket) => socket.accepts);
        // While its own servers come and go, what was said holds.
        const now = accepts ? "accepting" : this.#order === "accept" ? this.#said : "stopped";
        if (now !== this.#said) this.#say(now);
        this.#said = now;
    }

    #heed([order, ...words]) {
        // A program that leaves does not come back.
        if (this.#order === "leave") return;
        this.#order = order;
        this.#settle();
        if (order === "leave") this.#leave(words);
    }

    /** Has the program finish, by the first of these signals that it listens for. */
    #leave(signals) {
        const heard = heardFirst(signals);
        this.#say("leaving", heard ?? "");
        if (heard) {
            process.kill(process.pid, heard);
            return;
        }
        // It knows nothing of finishing: what is open is let come to its end, and then it is as if it had been asked.
        const closed = [...this.#servers.keys()].map((server) => new Promise((done) => close.call(server, done)));
        for (const server of this.#servers.keys()) server.closeIdleConnections?.();
        Promise.all(closed).then(() => process.kill(process.pid, signals.at(-1)));
    }

    /** A signal by which the program would have itself started anew: it is replaced instead, and serves meanwhile. */
    #keepsFromRestarting(name) {
        if (this.#order !== "accept" || name !== heardFirst(this.#setup.restarts)) return false;
        this.#say("restart", name);
        return true;
    }
}

/** The first of these signals that the program listens for. */
const heardFirst = (signals) => signals.find((signal) => process.listenerCount(signal) > 0);

/** Where a call of `listen` leads if that is a port: its signatures are those of Node's documentation. */
function read(words) {
    const callback = words.findLast((word) => typeof word === "function");
    const [first, ...rest] = words;
    const isObject = typeof first === "object" && first !== null;
    // Handles, descriptors and paths go before a port.
    if (isObject && (first._handle || first.fd !== undefined || first.path)) return undefined;
    const options = isObject ? { ...first } : { port: first };
    if (!["number", "string"].includes(typeof options.port) || `${options.port}`.trim() === "") return undefined;
    if (!isObject) {
        const [host] = rest.filter((word) => typeof word === "string");
        const [backlog] = rest.filter((word) => typeof word === "number");
        Object.assign(options, host && { host }, backlog && { backlog });
    }
    return { port: Number(options.port), host: options.host || "::", options, callback };
}

/** Where a server listens indeed. */
const privateAddress = (server) => net.Server.prototype.address.call(server);

const given = process.env.HOLDFAST_NODE;
// A worker thread finds it gone: it is the first thread that listens.
if (given) {
    const setup = JSON.parse(given);
    delete process.env.HOLDFAST_NODE;
    delete process.env.LISTEN_PID;
    if (setup.options === null) delete process.env.NODE_OPTIONS;
    else process.env.NODE_OPTIONS = setup.options;
    new Preload(setup).install();
}
