// What the servers of these tests offer, the same for each SDK; server.py offers the same.
//
// A handler gets the parameters of a request and a `peer`, which does what an SDK calls by a name of its own:
//   notify(method, params)  to the client, within this request      signal        when the client gives the request up
//   ask(method, params)     of the client; sessions only            token         for progress, if the client asked for it
//   changed(method, params) to whoever listens                      answers       what the client answered; stateless only
//   stateless               whether this is revision 2026-07-28     ran(tool)     for the journal
//   hangUp()                ends the stream on which the answer would come; sessions only

export const GUIDE = "docs:///guide"
export const TEMPLATE = "docs:///{id}"

const text = (text) => ({ content: [{ type: "text", text }] })
const empty = { type: "object", properties: {} }

// `x-mcp-header`: revision 2026-07-28 has this argument in a header as well.
const arguments_ = {
    echo: { type: "object", properties: { text: { type: "string" } }, required: ["text"] },
    where: { type: "object", properties: { region: { type: "string", "x-mcp-header": "Region" } }, required: ["region"] },
}
const NAMES = ["echo", "where", "progress", "log", "ask", "wait", "touch", "drop"]
const TOOLS = NAMES.map((name) => ({ name, description: name, inputSchema: arguments_[name] ?? empty }))

const question = {
    message: "Go on?",
    requestedSchema: { type: "object", properties: { yes: { type: "boolean" } }, required: ["yes"] },
}
const prompt = { messages: [{ role: "user", content: { type: "text", text: "Hello?" } }], maxTokens: 10 }

const run = {
    echo: ({ text: said }) => text(said),
    where: ({ region }) => text(region),
    async progress(_, peer) {
        for (const progress of [1, 2]) {
            await peer.notify("notifications/progress", { progressToken: peer.token, progress, total: 2 })
        }
        return text("done")
    },
    async log(_, peer) {
        await peer.notify("notifications/message", { level: "info", data: "noted" })
        return text("logged")
    },
    // Everything that a server can ask of a client.
    async ask(_, peer) {
        if (!peer.stateless) {
            const roots = await peer.ask("roots/list", {})
            const sampled = await peer.ask("sampling/createMessage", prompt)
            const elicited = await peer.ask("elicitation/create", question)
            return text(`${roots.roots[0].uri} ${sampled.content.text} ${elicited.content.yes}`)
        }
        if (!peer.answers) {
            const inputRequests = { confirm: { method: "elicitation/create", params: { mode: "form", ...question } } }
            return { resultType: "input_required", inputRequests }
        }
        return text(`${peer.answers.confirm.content.yes}`)
    },
    // Does not end by itself.
    async wait(_, peer) {
        const given = new Promise((resolve) => peer.signal.addEventListener("abort", resolve, { once: true }))
        await peer.notify("notifications/progress", { progressToken: peer.token, progress: 1 })
        await given
        peer.ran("wait, given up")
        return text("given up")
    },
    // The client has to fetch this answer anew.
    async drop(_, peer) {
        await peer.notify("notifications/progress", { progressToken: peer.token, progress: 1 })
        peer.hangUp()
        return text("fetched")
    },
    async touch(_, peer) {
        await peer.changed("notifications/resources/updated", { uri: GUIDE })
        await peer.changed("notifications/resources/list_changed")
        await peer.changed("notifications/tools/list_changed")
        await peer.changed("notifications/prompts/list_changed")
        return text("touched")
    },
}

export const capabilities = {
    tools: { listChanged: true },
    resources: { subscribe: true, listChanged: true },
    prompts: { listChanged: true },
    completions: {},
    logging: {},
}

export const handlers = {
    "tools/list": () => ({ tools: TOOLS }),
    "tools/call": async (params, peer) => {
        if (!(params.name in run)) throw new Error(`no tool ${params.name}`)
        peer.ran(params.name)
        return run[params.name](params.arguments ?? {}, peer)
    },
    "resources/list": () => ({ resources: [{ uri: GUIDE, name: "guide" }] }),
    "resources/templates/list": () => ({ resourceTemplates: [{ uriTemplate: TEMPLATE, name: "page" }] }),
    "resources/read": ({ uri }) => ({ contents: [{ uri, text: `the text of ${uri}` }] }),
    "prompts/list": () => ({ prompts: [{ name: "greet", arguments: [{ name: "who" }] }] }),
    "prompts/get": (params) => ({
        messages: [{ role: "user", content: { type: "text", text: `Hello ${params.arguments?.who}` } }],
    }),
    "completion/complete": ({ argument }) => ({ completion: { values: [`${argument.value}-completed`] } }),
}

// What revision 2026-07-28 has no more.
export const sessionHandlers = {
    "resources/subscribe": () => ({}),
    "resources/unsubscribe": () => ({}),
    "logging/setLevel": () => ({}),
}
