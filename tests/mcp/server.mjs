// MCP servers with the official TypeScript SDKs, on a Unix socket: `node server.mjs --socket FILE --journal FILE`
//
//   /ts1/…/mcp   SDK 1.x: sessions, event streams that can be resumed, tasks       /ts1/…/sse, /ts1/…/messages
//   /ts2/…/mcp   SDK 2.x: revision 2026-07-28 alone                                the two endpoints of revision 2024-11-05
//
// What stands between is for whoever chooses by the path. The journal says which requests came, and which tools ran.
import { randomUUID } from "node:crypto"
import { openSync, writeSync } from "node:fs"
import { createServer } from "node:http"
import { parseArgs } from "node:util"
import { toNodeHandler } from "@modelcontextprotocol/node"
import { InMemoryTaskMessageQueue, InMemoryTaskStore } from "@modelcontextprotocol/sdk/experimental/tasks/stores/in-memory.js"
import { Server as SessionServer } from "@modelcontextprotocol/sdk/server/index.js"
import { SSEServerTransport } from "@modelcontextprotocol/sdk/server/sse.js"
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js"
import * as types from "@modelcontextprotocol/sdk/types.js"
import { createMcpHandler, Server as StatelessServer } from "@modelcontextprotocol/server"
import { capabilities, handlers, sessionHandlers } from "./features.mjs"

const options = { socket: { type: "string" }, journal: { type: "string" } }
const { values } = parseArgs({ options })
const journal = openSync(values.journal, "a")
const note = (kind, facts) => writeSync(journal, JSON.stringify({ kind, ...facts }) + "\n")
const ran = (tool) => note("tool", { tool })

// ---------------------------------------------------------------------------------------------------- SDK 1.x, sessions

const schemas = {
    "tools/list": types.ListToolsRequestSchema,
    "tools/call": types.CallToolRequestSchema,
    "resources/list": types.ListResourcesRequestSchema,
    "resources/templates/list": types.ListResourceTemplatesRequestSchema,
    "resources/read": types.ReadResourceRequestSchema,
    "resources/subscribe": types.SubscribeRequestSchema,
    "resources/unsubscribe": types.UnsubscribeRequestSchema,
    "prompts/list": types.ListPromptsRequestSchema,
    "prompts/get": types.GetPromptRequestSchema,
    "completion/complete": types.CompleteRequestSchema,
    "logging/setLevel": types.SetLevelRequestSchema,
}
const results = {
    "roots/list": types.ListRootsResultSchema,
    "sampling/createMessage": types.CreateMessageResultSchema,
    "elicitation/create": types.ElicitResultSchema,
}

function sessionServer() {
    const tasks = { list: {}, cancel: {}, requests: { tools: { call: {} } } }
    const server = new SessionServer(
        { name: "ts1", version: "1" },
        {
            capabilities: { ...capabilities, tasks },
            taskStore: new InMemoryTaskStore(),
            taskMessageQueue: new InMemoryTaskMessageQueue(),
        },
    )
    for (const [method, handle] of Object.entries({ ...handlers, ...sessionHandlers })) {
        server.setRequestHandler(schemas[method], async ({ params }, extra) => {
            if (params?.task) return asTask(server, params, extra)
            return handle(params, {
                notify: (method, params) => extra.sendNotification({ method, params }),
                ask: (method, params) => extra.sendRequest({ method, params }, results[method]),
                changed: (method, params) => server.notification({ method, params }),
                hangUp: () => extra.closeSSEStream(),
                signal: extra.signal,
                token: extra._meta?.progressToken,
                stateless: false,
                ran,
            })
        })
    }
    return server
}

// A call that the client wants as a task. `echo` is done at once; `ask` asks the client for a message, as a task of the client,
// and what it says is the result; `wait` goes on until the client ends it.
async function asTask(server, { name, task: wish, arguments: given }, { taskStore, requestId, sendRequest }) {
    const task = await taskStore.createTask({ ttl: wish.ttl })
    ran(name)
    const done = (text) => taskStore.storeTaskResult(task.taskId, "completed", { content: [{ type: "text", text }] })
    if (name === "echo") await done(given.text)
    if (name === "ask") {
        const messages = [{ role: "user", content: { type: "text", text: "Hello?" } }]
        const params = { messages, maxTokens: 10, task: { ttl: 60000 } }
        const made = await sendRequest({ method: "sampling/createMessage", params }, types.CreateTaskResultSchema)
        await done(made.task.taskId)
    }
    return { task }
}

// Events of a stream, for clients that lost it. The id of an event says of which stream it is.
class Events {
    #kept = []
    async storeEvent(stream, message) {
        this.#kept.push({ stream, message })
        return `${stream}/${this.#kept.length - 1}`
    }
    async getStreamIdForEventId(id) {
        return this.#kept[Number(id.split("/").at(-1))]?.stream
    }
    async replayEventsAfter(id, { send }) {
        const last = Number(id.split("/").at(-1))
        const { stream } = this.#kept[last]
        for (const [at, event] of this.#kept.entries()) {
            if (at > last && event.stream === stream && Object.keys(event.message ?? {}).length) {
                await send(`${stream}/${at}`, event.message)
            }
        }
        return stream
    }
}

const sessions = new Map()

async function streamable(request, response) {
    let transport = sessions.get(request.headers["mcp-session-id"])
    if (!transport) {
        transport = new StreamableHTTPServerTransport({
            sessionIdGenerator: randomUUID,
            eventStore: new Events(),
            retryInterval: 20, // milliseconds until a client whose stream ended comes back
            onsessioninitialized: (id) => void sessions.set(id, transport),
            onsessionclosed: (id) => void sessions.delete(id),
        })
        await sessionServer().connect(transport)
    }
    await transport.handleRequest(request, response)
}

async function events(request, response) {
    const transport = new SSEServerTransport(request.url.replace(/sse$/, "messages"), response)
    sessions.set(transport.sessionId, transport)
    transport.onclose = () => sessions.delete(transport.sessionId)
    await sessionServer().connect(transport)
}

async function messages(request, response, query) {
    const transport = sessions.get(query.get("sessionId"))
    if (transport) await transport.handlePostMessage(request, response)
    else response.writeHead(404).end()
}

// ------------------------------------------------------------------------------------------------- SDK 2.x, no sessions

const changes = {
    "notifications/resources/updated": ({ uri }) => stateless.notify.resourceUpdated(uri),
    "notifications/resources/list_changed": () => stateless.notify.resourcesChanged(),
    "notifications/tools/list_changed": () => stateless.notify.toolsChanged(),
    "notifications/prompts/list_changed": () => stateless.notify.promptsChanged(),
}

const stateless = createMcpHandler(
    () => {
        const server = new StatelessServer({ name: "ts2", version: "1" }, { capabilities })
        for (const [method, handle] of Object.entries(handlers)) {
            server.setRequestHandler(method, ({ params }, { mcpReq }) =>
                handle(params, {
                    notify: (method, params) => mcpReq.notify({ method, params }),
                    changed: (method, params) => changes[method](params),
                    signal: mcpReq.signal,
                    token: mcpReq._meta?.progressToken,
                    answers: mcpReq.inputResponses,
                    stateless: true,
                    ran,
                }),
            )
        }
        return server
    },
    { legacy: "reject" },
)
const answerStateless = toNodeHandler(stateless)

// ---------------------------------------------------------------------------------------------------------------- server

const server = createServer(async (request, response) => {
    const { pathname, searchParams } = new URL(request.url, "http://localhost")
    if (pathname === "/status") return response.end()
    note("request", {
        method: request.method,
        path: pathname,
        decision: request.headers["x-palisade-decision-id"],
        revision: request.headers["mcp-protocol-version"],
        last_event: request.headers["last-event-id"],
    })
    const [, sdk, endpoint] = /^\/(ts1|ts2)\/(?:.*\/)?(mcp|sse|messages)$/.exec(pathname) ?? []
    if (sdk === "ts2" && endpoint === "mcp") await answerStateless(request, response)
    else if (sdk === "ts1" && endpoint === "mcp") await streamable(request, response)
    else if (sdk === "ts1" && endpoint === "sse") await events(request, response)
    else if (sdk === "ts1") await messages(request, response, searchParams)
    else response.writeHead(404).end()
})
server.listen(values.socket)
