// A server of Node that takes a descriptor: node server.mjs FD

import { createServer } from "node:http";
import net from "node:net";

const server = createServer((_, response) => response.end("ok"));
server.listen({ fd: Number(process.argv[2]) });
process.once("SIGTERM", () => {
    // Node's own `close` would also close connections that were accepted and have not asked for anything yet.
    net.Server.prototype.close.call(server, () => process.exit(0));
    server.keepAliveTimeout = 1;
});
