// A client of the tests, with the official A2A SDK: `node client.mjs PORT BINDING VERSION`, with the port of an agent's proxy.
//
// It calls every method there is in this binding and version, over one connection, in the order in which a task lives, and
// prints a line for each: {"method": …, "result": …} or {"method": …, "error": {…}}. Without a task of its own, because that
// was denied, it asks for one that is not there. Last comes how many connections it took.

import { Agent, request } from 'node:http';
import { Readable } from 'node:stream';

import { AgentCard, SendMessageRequest, TaskPushNotificationConfig } from '@a2a-js/sdk';
import { ClientFactory, JsonRpcTransportFactory, RestTransportFactory } from '@a2a-js/sdk/client';
import { GrpcTransportFactory } from '@a2a-js/sdk/client/grpc';

const [port, binding, version] = process.argv.slice(2);
const HOST = 'researcher.example.org';

// The SDK's transports take any `fetch`; this one uses the proxy, which `fetch` of Node cannot.
const agent = new Agent({ keepAlive: true, maxSockets: 2 });
const sockets = new Set();
function fetchImpl(url, { method, headers, body, signal }) {
  const { pathname, search } = new URL(url);
  return new Promise((resolve, reject) => {
    const sent = request(
      { agent, port, host: '127.0.0.1', path: pathname + search, method, headers: { ...headers, host: HOST }, signal },
      (answer) => {
        const empty = [204, 304].includes(answer.statusCode);
        if (empty) answer.resume();
        resolve(new Response(empty ? null : Readable.toWeb(answer), { status: answer.statusCode, headers: answer.headers }));
      },
    );
    sent.on('socket', (socket) => sockets.add(socket));
    sent.on('error', reject);
    sent.end(body);
  });
}

const url = { JSONRPC: `http://${HOST}/a2a`, 'HTTP+JSON': `http://${HOST}/rest`, GRPC: `127.0.0.1:${port}` }[binding];
const card = AgentCard.fromJSON({
  name: 'researcher',
  supportedInterfaces: [{ url, protocolBinding: binding, tenant: '', protocolVersion: version }],
  capabilities: { streaming: true, pushNotifications: true, extendedAgentCard: true },
});
const legacyCompat = { enabled: true };
const factory = new ClientFactory({
  transports: [
    new JsonRpcTransportFactory({ fetchImpl, legacyCompat }),
    new RestTransportFactory({ fetchImpl, legacyCompat }),
    new GrpcTransportFactory({ grpcCallOptions: { host: HOST }, legacyCompat }),
  ],
});
const client = await factory.createFromAgentCard(card);

const say = (line) => console.log(JSON.stringify(line));
async function call(method, make, tell = () => true) {
  try {
    const result = await make();
    say({ method, result: tell(result) });
    return result;
  } catch (error) {
    const { name, message, code, status, statusCode, envelopeCode } = error;
    say({ method, error: { name, message, code, status, statusCode, envelopeCode } });
  }
}
const message = (text) =>
  SendMessageRequest.fromJSON({
    message: { messageId: crypto.randomUUID(), role: 'ROLE_USER', parts: [{ text }] },
    configuration: { acceptedOutputModes: ['text/plain'], returnImmediately: true },
  });
const webhook = (taskId, url) => TaskPushNotificationConfig.fromJSON({ taskId, id: 'w', url });
const first = async (stream) => {
  const { value } = await stream.next();
  await stream.return();
  return value;
};
const kind = (event) => event?.payload?.$case;

await call('GetExtendedAgentCard', () => client.getAgentCard(), (card) => card.name);
const task = await call('SendMessage', () => client.sendMessage(message('work')), (task) => task.status.state);
const id = task?.id ?? 'none';
await call('GetTask', () => client.getTask({ tenant: '', id, historyLength: 2 }), (task) => task.id === id);
if (version !== '0.3') {
  const page = { tenant: '', contextId: task?.contextId ?? '', status: 0, pageSize: 5, pageToken: '' };
  await call('ListTasks', () => client.listTasks(page), ({ tasks }) => tasks.map((task) => task.id === id));
}
await call('SubscribeToTask', () => first(client.resubscribeTask({ tenant: '', id })), kind);
const metadata = 'http://169.254.169.254/latest';
await call('a webhook to metadata', () => client.createTaskPushNotificationConfig(webhook(id, metadata)));
const ours = 'https://hooks.example.org/t';
const one = { tenant: '', taskId: id, id: 'w' };
await call('CreateTaskPushNotificationConfig', () => client.createTaskPushNotificationConfig(webhook(id, ours)), ({ url }) => url);
await call('GetTaskPushNotificationConfig', () => client.getTaskPushNotificationConfig(one), ({ url }) => url);
const all = { tenant: '', taskId: id, pageSize: 0, pageToken: '' };
await call('ListTaskPushNotificationConfigs', () => client.listTaskPushNotificationConfig(all), ({ configs }) => configs.length);
await call('DeleteTaskPushNotificationConfig', () => client.deleteTaskPushNotificationConfig(one));
await call('CancelTask', () => client.cancelTask({ tenant: '', id, metadata: undefined }), (task) => task.status.state);
await call('SendStreamingMessage', () => first(client.sendMessageStream(message('work on'))), kind);
say({ connections: sockets.size });
process.exit(0);
