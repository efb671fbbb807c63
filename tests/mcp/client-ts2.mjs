// What is particular about the SDK 2.x as a client: with and without sessions, and no tasks.
import { Client, fromJsonSchema, SSEClientTransport, StreamableHTTPClientTransport } from "@modelcontextprotocol/client"

// `mode` may be a revision with sessions instead, the only one that the client is to know.
export async function connect({ url, transport: kind, mode, fetch, asked, seen, failed, TIMEOUT }) {
    const capabilities = { roots: { listChanged: true }, sampling: {}, elicitation: {} }
    const how = /^2/.test(mode) ? { supportedProtocolVersions: [mode] } : { versionNegotiation: { mode } }
    const client = new Client({ name: "ts2", version: "1" }, { capabilities, ...how })
    client.onerror = failed
    client.fallbackNotificationHandler = async ({ method, params }) => seen(method, params)
    for (const method of ["roots/list", "sampling/createMessage", "elicitation/create"]) {
        client.setRequestHandler(method, async ({ params }) => asked(method, params))
    }
    const Transport = kind === "sse" ? SSEClientTransport : StreamableHTTPClientTransport
    const transport = new Transport(url, { fetch })
    await client.connect(transport, TIMEOUT)
    return { client, transport }
}

export const call = (client, params, options) => client.callTool(params, options)

const anything = fromJsonSchema({ type: "object" })
export const request = (client, method, options) => client.request({ method, params: {} }, anything, options)

export const tasks = {}
