// MCP clients with the official TypeScript SDKs: `node client.mjs ts1` (1.x) or `ts2` (2.x); client.py does the same in Python.
//
// A command is a line of JSON on standard input, {"id": 1, "session": "s", "do": "list_tools", …}; its outcome a line on standard
// output, {"id": 1, "result": …} or {"id": 1, "error": {…}}, in the order in which they end. {"do": "await", "match": {…}, "after": 0}
// ends when the session has, or gets, an event with these members behind the first so many:
//   http      an answer: method, rpc (the JSON-RPC method that was sent), status, decision
//   message   a notification or request of the server: method, params
//   error     what the SDK reports beside the outcome of a call: message
import { createConnection } from "node:net"
import { createInterface } from "node:readline"
import { Agent, fetch } from "undici"

const sdk = process.argv[2]
const { connect, call, request, tasks } = await import(`./client-${sdk}.mjs`)

const TIMEOUT = { timeout: 20_000, resetTimeoutOnProgress: true } // milliseconds; whoever waits for this process gives up later
const sessions = new Map()

class Session {
    events = []
    #awaited = new Set()
    calls = new Map()

    happened(kind, facts) {
        const event = { kind, ...facts }
        this.events.push(event)
        for (const look of this.#awaited) look(event)
    }

    wait(match, after = 0) {
        const fits = (event) => Object.entries(match).every(([name, value]) => event[name] === value)
        return new Promise((resolve) => {
            const look = (event) => {
                if (!fits(event)) return
                this.#awaited.delete(look)
                resolve(event)
            }
            const found = this.events.slice(after).find(fits)
            if (found) resolve(found)
            else this.#awaited.add(look)
        })
    }

    // Every connection to one port, with the host that was meant: what HTTP_PROXY is to other clients.
    fetch(port) {
        const connect = (_, connected) => {
            const socket = createConnection(port, "127.0.0.1", () => connected(null, socket))
            socket.once("error", (error) => connected(error, null))
        }
        const dispatcher = new Agent({ connect })
        return async (url, init = {}) => {
            const answer = await fetch(url, { ...init, dispatcher })
            const said = typeof init.body === "string" ? JSON.parse(init.body) : {}
            const rpc = said.method ?? (init.body ? "response" : null)
            const decision = answer.headers.get("x-palisade-decision-id")
            this.happened("http", { method: init.method ?? "GET", rpc, status: answer.status, decision })
            return answer
        }
    }
}

// What the server may ask, and what it is told.
const answers = {
    "roots/list": () => ({ roots: [{ uri: "file:///home", name: "home" }] }),
    "sampling/createMessage": () => ({ model: "none", role: "assistant", content: { type: "text", text: "sampled" } }),
    "elicitation/create": () => ({ action: "accept", content: { yes: true } }),
}

const commands = {
    async open({ session: name, url, port, transport, mode }) {
        const session = new Session()
        sessions.set(name, session)
        const seen = (method, params) => session.happened("message", { method, params })
        const asked = (method, params) => (seen(method, params), answers[method](params))
        const fetch = session.fetch(port)
        const failed = (error) => session.happened("error", { message: error.message })
        Object.assign(session, await connect({ url: new URL(url), transport, mode, fetch, asked, seen, failed, TIMEOUT }))
        return { capabilities: session.client.getServerCapabilities() }
    },
    close: (_, { client }) => client.close(),
    end: (_, { transport }) => transport.terminateSession(),
    await: ({ match, after }, session) => session.wait(match, after),
    events: (_, session) => session.events,

    ping: (_, { client }) => client.ping(TIMEOUT),
    discover: (_, { client }) => client.discover(TIMEOUT),
    set_level: ({ level }, { client }) => client.setLoggingLevel(level, TIMEOUT),
    list_tools: (_, { client }) => client.listTools(undefined, { ...TIMEOUT, cacheMode: "refresh" }),
    list_resources: (_, { client }) => client.listResources(undefined, { ...TIMEOUT, cacheMode: "refresh" }),
    list_templates: (_, { client }) => client.listResourceTemplates(undefined, { ...TIMEOUT, cacheMode: "refresh" }),
    list_prompts: (_, { client }) => client.listPrompts(undefined, { ...TIMEOUT, cacheMode: "refresh" }),
    read: ({ uri }, { client }) => client.readResource({ uri }, { ...TIMEOUT, cacheMode: "refresh" }),
    subscribe: ({ uri }, { client }) => client.subscribeResource({ uri }, TIMEOUT),
    unsubscribe: ({ uri }, { client }) => client.unsubscribeResource({ uri }, TIMEOUT),
    get_prompt: ({ name, arguments: given }, { client }) => client.getPrompt({ name, arguments: given }, TIMEOUT),
    complete: ({ ref, argument }, { client }) => client.complete({ ref, argument }, TIMEOUT),
    send_progress: ({ token }, { client }) =>
        client.notification({ method: "notifications/progress", params: { progressToken: token, progress: 1 } }),
    roots_changed: (_, { client }) => client.sendRootsListChanged(),
    // Any method at all.
    request: ({ method }, { client }) => request(client, method, TIMEOUT),
    async listen({ filter }, session) {
        session.subscription = await session.client.listen(filter, TIMEOUT)
    },
    unlisten: (_, { subscription }) => subscription.close(),

    // `key` is for `cancel`.
    call({ name, arguments: given, key }, session) {
        const giver = new AbortController()
        session.calls.set(key, giver)
        const onprogress = (params) => session.happened("message", { method: "notifications/progress", params })
        return call(session.client, { name, arguments: given ?? {} }, { ...TIMEOUT, onprogress, signal: giver.signal })
    },
    cancel: ({ key }, session) => session.calls.get(key).abort("not wanted any more"),

    ...tasks,
}

const describe = (error) => ({
    type: error?.constructor?.name,
    message: String(error?.message ?? error),
    code: error?.code,
    data: error?.data,
})

const say = (line) => process.stdout.write(JSON.stringify(line) + "\n")

for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line)
    Promise.resolve()
        .then(() => commands[command.do](command, sessions.get(command.session)))
        .then((result) => say({ id: command.id, result: result ?? null }))
        .catch((error) => say({ id: command.id, error: describe(error) }))
}
process.exit()
