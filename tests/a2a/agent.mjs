// The agent of the tests, with the official A2A SDK: `node agent.mjs --socket FILE --grpc FILE --journal FILE`.
//
// It speaks 0.3 and 1.0 over JSON-RPC (/a2a), HTTP+JSON (/rest) and gRPC (a socket of its own). A message becomes a task that
// works until it is cancelled. Every call that reaches it is a line of the journal.

import { appendFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';

import { AgentCard, TaskState } from '@a2a-js/sdk';
import { duplicateInterfacesForLegacy } from '@a2a-js/sdk/compat/v0_3';
import { LegacyA2AService, legacyGrpcService } from '@a2a-js/sdk/compat/v0_3/server/grpc';
import { AgentEvent, DefaultRequestHandler, InMemoryPushNotificationStore, InMemoryTaskStore } from '@a2a-js/sdk/server';
import { agentCardHandler, jsonRpcHandler, restHandler, UserBuilder } from '@a2a-js/sdk/server/express';
import { A2AService, grpcService } from '@a2a-js/sdk/server/grpc';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import express from 'express';

const { values: options } = parseArgs({
  options: { socket: { type: 'string' }, grpc: { type: 'string' }, journal: { type: 'string' } },
});
const note = (line) => appendFileSync(options.journal, `${JSON.stringify(line)}\n`);

const HOST = 'researcher.example.org';
const BINDINGS = { JSONRPC: `http://${HOST}/a2a`, 'HTTP+JSON': `http://${HOST}/rest`, GRPC: HOST };
const card = AgentCard.fromJSON({
  name: 'researcher',
  description: 'Works on whatever it is told, until it is told to stop.',
  version: '1.0.0',
  supportedInterfaces: duplicateInterfacesForLegacy(
    Object.entries(BINDINGS).map(([protocolBinding, url]) => ({ protocolBinding, url, tenant: '', protocolVersion: '1.0' })),
    Object.keys(BINDINGS),
  ),
  capabilities: { streaming: true, pushNotifications: true, extendedAgentCard: true },
  defaultInputModes: ['text/plain'],
  defaultOutputModes: ['text/plain'],
});

const stops = new Map();
const executor = {
  async execute({ userMessage, taskId, contextId }, bus) {
    const status = (state) => ({ state, timestamp: new Date().toISOString(), message: undefined });
    const stopped = new Promise((resolve) => stops.set(taskId, resolve));
    const working = status(TaskState.TASK_STATE_WORKING);
    bus.publish(AgentEvent.task({ id: taskId, contextId, status: working, artifacts: [], history: [userMessage], metadata: {} }));
    await stopped;
    stops.delete(taskId);
    bus.publish(AgentEvent.statusUpdate({ taskId, contextId, status: status(TaskState.TASK_STATE_CANCELED), metadata: {} }));
    bus.finished();
  },
  cancelTask: async (taskId) => stops.get(taskId)?.(),
};

const requestHandler = new DefaultRequestHandler(
  card,
  new InMemoryTaskStore(),
  executor,
  undefined,
  new InMemoryPushNotificationStore(),
  // Webhooks are registered here and never called.
  { send: async () => {} },
  async () => card,
);
const handler = { requestHandler, userBuilder: UserBuilder.noAuthentication, legacyCompat: { enabled: true } };

const app = express();
app.use((request, response, next) => {
  note({ kind: 'request', method: request.method, path: request.path });
  next();
});
app.use('/.well-known/agent-card.json', agentCardHandler({ agentCardProvider: requestHandler, legacyCompat: { enabled: true } }));
app.use('/a2a', jsonRpcHandler(handler));
app.use('/rest', restHandler(handler));

const grpc = new Server();
for (const [service, implementation] of [
  [A2AService, grpcService({ requestHandler, userBuilder: UserBuilder.noAuthentication })],
  [LegacyA2AService, legacyGrpcService({ requestHandler, userBuilder: UserBuilder.noAuthentication })],
]) {
  const noted = Object.entries(implementation).map(([name, method]) => [
    name,
    (...all) => {
      note({ kind: 'request', method: 'gRPC', path: service[name].path });
      return method(...all);
    },
  ]);
  grpc.addService(service, Object.fromEntries(noted));
}
grpc.bindAsync(`unix:${options.grpc}`, ServerCredentials.createInsecure(), (error) => {
  if (error) throw error;
  createServer(app).listen(options.socket);
});
