"""The sample A2A agent: a researcher that answers every question, in one task, with what it was asked.

It speaks the JSON-RPC binding and serves its agent card. Like the CRM it knows nothing of authorization, and journals
every message that reached it. `python -m demo.researcher_agent --socket researcher.sock --journal researcher.jsonl`
"""

from __future__ import annotations

import argparse
from pathlib import Path

import uvicorn
from a2a.helpers import new_task_from_user_message, new_text_artifact_update_event, new_text_status_update_event
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill, TaskState
from a2a.utils.constants import PROTOCOL_VERSION_CURRENT, TransportProtocol
from starlette.applications import Starlette

from demo.journal import Journal, NoteRequests
from demo.names import HOSTS

RPC_PATH = "/a2a"


class Researcher(AgentExecutor):
    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        question = context.get_user_input()
        self._journal.note("message", text=question)
        if context.current_task is None:
            await event_queue.enqueue_event(new_task_from_user_message(context.message))
        task, conversation = context.task_id, context.context_id
        answer = f"Three sources agree about: {question}"
        await event_queue.enqueue_event(new_text_artifact_update_event(task, conversation, "answer", answer))
        await event_queue.enqueue_event(
            new_text_status_update_event(task, conversation, TaskState.TASK_STATE_COMPLETED, "done")
        )

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await event_queue.enqueue_event(
            new_text_status_update_event(
                context.task_id, context.context_id, TaskState.TASK_STATE_CANCELED, "cancelled"
            )
        )


def card() -> AgentCard:
    return AgentCard(
        name="researcher",
        description="Looks things up for other agents.",
        version="1.0.0",
        supported_interfaces=[
            AgentInterface(
                url=f"http://{HOSTS['researcher']}{RPC_PATH}",
                protocol_binding=TransportProtocol.JSONRPC,
                protocol_version=PROTOCOL_VERSION_CURRENT,
            )
        ],
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="research", name="Research", description="Answers a question.", tags=["research"])],
    )


def build(journal: Journal) -> NoteRequests:
    handler = DefaultRequestHandler(
        agent_executor=Researcher(journal), task_store=InMemoryTaskStore(), agent_card=card()
    )
    app = Starlette(routes=[*create_agent_card_routes(card()), *create_jsonrpc_routes(handler, RPC_PATH)])
    return NoteRequests(app, journal)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--socket", type=Path, required=True, help="Unix socket to listen on")
    parser.add_argument("--journal", type=Path, required=True, help="JSON lines of what reached the agent")
    arguments = parser.parse_args()
    uvicorn.run(
        build(Journal(arguments.journal)), uds=str(arguments.socket), log_level="warning", timeout_graceful_shutdown=1
    )


if __name__ == "__main__":
    main()
