// What is particular about the SDK 1.x as a client: sessions, and tasks on both sides.
import { InMemoryTaskStore } from "@modelcontextprotocol/sdk/experimental/tasks/stores/in-memory.js"
import { Client } from "@modelcontextprotocol/sdk/client/index.js"
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js"
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js"
import * as types from "@modelcontextprotocol/sdk/types.js"

const asks = {
    "roots/list": types.ListRootsRequestSchema,
    "sampling/createMessage": types.CreateMessageRequestSchema,
    "elicitation/create": types.ElicitRequestSchema,
}

export async function connect({ url, transport: kind, fetch, asked, seen, failed, TIMEOUT }) {
    const tasks = { list: {}, cancel: {}, requests: { sampling: { createMessage: {} } } }
    const capabilities = { roots: { listChanged: true }, sampling: {}, elicitation: {}, tasks }
    const client = new Client({ name: "ts1", version: "1" }, { capabilities, taskStore: new InMemoryTaskStore() })
    client.onerror = failed
    client.fallbackNotificationHandler = async ({ method, params }) => seen(method, params)
    for (const [method, schema] of Object.entries(asks)) {
        client.setRequestHandler(schema, async ({ params }, { taskStore }) => {
            const answer = asked(method, params)
            if (!params?.task) return answer
            const task = await taskStore.createTask({ ttl: params.task.ttl })
            // Tells the server of it: a notification about the client's own task. The server hears of the task first.
            setImmediate(() => taskStore.storeTaskResult(task.taskId, "completed", answer).catch(failed))
            return { task }
        })
    }
    const Transport = kind === "sse" ? SSEClientTransport : StreamableHTTPClientTransport
    const transport = new Transport(url, { fetch })
    await client.connect(transport, TIMEOUT)
    return { client, transport }
}

export const call = (client, params, options) => client.callTool(params, undefined, options)

export const request = (client, method, options) => client.request({ method, params: {} }, types.EmptyResultSchema, options)

export const tasks = {
    task_call: ({ name, arguments: given }, { client }) =>
        client.request({ method: "tools/call", params: { name, arguments: given ?? {} } }, types.CreateTaskResultSchema, {
            task: { ttl: 60_000 },
        }),
    task_get: ({ task }, { client }) => client.experimental.tasks.getTask(task),
    task_result: ({ task }, { client }) => client.experimental.tasks.getTaskResult(task, types.CallToolResultSchema),
    task_list: (_, { client }) => client.experimental.tasks.listTasks(),
    task_cancel: ({ task }, { client }) => client.experimental.tasks.cancelTask(task),
}
