//! The schema as Palisade needs it: actions and their contexts, and the types of its own entities.

use crate::bundles::Mistake;

pub const MISTAKES: &[Mistake] = &[
    Mistake {
        name: "tool action without a registry entry",
        edit: |edit| {
            edit.write("new.cedarschema", "\naction \"crm/new\" in [\"tools/call\"] appliesTo { principal: [Agent], resource: [Tool], context: { input: {}, now: datetime, local: Local, request: RequestFacts, body?: BodyFacts, mcp?: McpFacts, a2a?: A2aFacts, user?: User, delegation?: Delegation, scopes?: Set<String>, session?: Session, task?: String, grants: Set<String>, usage?: Usage } };\n")
        },
        message: "new.cedarschema:2: action `crm/new`: its resource is a Tool, but no *.tools.json registers it",
    },
    Mistake {
        name: "tool action that is written without quotes",
        edit: |edit| {
            edit.write("new.cedarschema", "\naction new_tool in [\"tools/call\"] appliesTo { principal: [Agent], resource: [Tool], context: { input: {}, now: datetime, local: Local, request: RequestFacts, body?: BodyFacts, mcp?: McpFacts, a2a?: A2aFacts, user?: User, delegation?: Delegation, scopes?: Set<String>, session?: Session, task?: String, grants: Set<String>, usage?: Usage } };\n")
        },
        message: "new.cedarschema:2: action `new_tool`: its resource is a Tool, but no *.tools.json registers it",
    },
    Mistake {
        name: "types that grow when their names are put in full",
        edit: |edit| {
            let lines = (1..30).map(|n| format!("type T{n} = {{ a: T{0}, b: T{0} }};\n", n - 1));
            edit.write("new.cedarschema", &("type T0 = { x: Long };\n".to_owned() + &lines.collect::<String>()))
        },
        message: "*.cedarschema: the types of the schema have more than 200000 parts",
    },
    Mistake {
        name: "action that is neither a tool's nor a protocol's",
        edit: |edit| {
            edit.write("new.cedarschema", "\naction \"tools/cal\" in [\"mcp\"] appliesTo { principal: [Agent], resource: [Server], context: Shared };\n")
        },
        message: "new.cedarschema:2: action `tools/cal`: no call is ever about it",
    },
    Mistake {
        name: "tool without an action",
        edit: |edit| edit.replace("crm.tools.json", "\"get_customer\"", "\"find_customer\""),
        message: "crm.cedarschema:34: action `crm/get_customer`: its resource is a Tool, but no *.tools.json registers it",
    },
    Mistake {
        name: "tool that is registered but has no action",
        edit: |edit| {
            edit.replace("crm.tools.json", "\"tools\": [", "\"tools\": [\n    { \"name\": \"merge_customers\" },")
        },
        message: "crm.tools.json:4: tool `crm/merge_customers` is registered, but the schema has no action `crm/merge_customers` for it",
    },
    Mistake {
        name: "context lacks an attribute",
        edit: |edit| edit.replace("crm.cedarschema", "    scopes?: Set<String>,\n", ""),
        message: "crm.cedarschema:9: action `crm/query_customers`: its context lacks the attribute `scopes`",
    },
    Mistake {
        name: "context lacks input",
        edit: |edit| edit.replace("crm.cedarschema", "    input: {\n      customer_id: Long,\n    },\n", ""),
        message: "crm.cedarschema:34: action `crm/get_customer`: its context lacks the attribute `input`",
    },
    Mistake {
        name: "context attribute of another type",
        edit: |edit| edit.replace("palisade.cedarschema", "  hour: Long,", "  hour: String,"),
        message: "palisade.cedarschema:‹any›: action `CancelTask`: context attribute `local` has to have type `{hour: Long, minute: Long, weekday: Long}`, not `{hour: String, minute: Long, weekday: Long}`",
    },
    Mistake {
        name: "context attribute that can be absent is required",
        edit: |edit| edit.replace("crm.cedarschema", "user?: User,", "user: User,"),
        message: "crm.cedarschema:9: action `crm/query_customers`: context attribute `user` can be absent: declare it as `user?`",
    },
    Mistake {
        name: "context attribute that nobody supplies",
        edit: |edit| edit.replace("crm.cedarschema", "    now: datetime,", "    now: datetime,\n    weather?: String,"),
        message: "crm.cedarschema:9: action `crm/query_customers`: context attribute `weather` is none that Palisade supplies",
    },
    Mistake {
        name: "input on an action that is no tool",
        edit: |edit| edit.replace("palisade.cedarschema", "type Shared = {", "type Shared = {\n  input?: { x: Long },"),
        message: "palisade.cedarschema:‹any›: action ‹any›: context attribute `input` is none that Palisade supplies",
    },
    Mistake {
        name: "input that is no record",
        edit: |edit| edit.replace("crm.cedarschema", "input: {\n      customer_id: Long,\n    },", "input: String,"),
        message: "crm.cedarschema:34: action `crm/get_customer`: context attribute `input` has to be a record",
    },
    Mistake {
        name: "argument of an entity type",
        edit: |edit| edit.replace("crm.cedarschema", "customer_id: Long", "customer: User"),
        message: "crm.cedarschema:34: action `crm/get_customer`: context attribute `input`: `customer`: no argument can have type `User`",
    },
    Mistake {
        name: "protocol action missing",
        edit: |edit| {
            edit.replace(
                "palisade.cedarschema",
                "  \"tasks/list\",                       // all of them. 2025-11-25 only\n",
                "",
            )
        },
        message: "the schema lacks the action `tasks/list` of protocol mcp",
    },
    Mistake {
        name: "protocol action that applies to nothing",
        edit: |edit| {
            edit.replace(
                "palisade.cedarschema",
                "  \"ping\",                             // are you there? Gone in 2026-07-28\n",
                "",
            );
            edit.write("new.cedarschema", "\naction \"ping\" in [\"mcp\"];\n")
        },
        message: "new.cedarschema:2: action `ping`: it has to apply to principal Agent and resource Server",
    },
    Mistake {
        name: "protocol action on another resource",
        edit: |edit| {
            edit.replace(
                "palisade.cedarschema",
                "  \"ping\",                             // are you there? Gone in 2026-07-28\n",
                "",
            );
            edit.write("new.cedarschema", "\naction \"ping\" in [\"mcp\"] appliesTo { principal: [Agent], resource: [Endpoint], context: Shared };\n")
        },
        message: "new.cedarschema:2: action `ping`: it has to apply to principal Agent and resource Server",
    },
    Mistake {
        name: "tool action outside of the group of all tool calls",
        edit: |edit| {
            edit.replace("crm.cedarschema", "\"crm/export_customers\" in [\"tools/call\"]", "\"crm/export_customers\"")
        },
        message: "crm.cedarschema:107: action `crm/export_customers`: it has to be in `Action::\"tools/call\"`, or policies about all tool calls would miss it",
    },
    Mistake {
        name: "tool action in the group of its protocol only",
        edit: |edit| {
            edit.replace(
                "crm.cedarschema",
                "\"crm/export_customers\" in [\"tools/call\"]",
                "\"crm/export_customers\" in [\"mcp\"]",
            )
        },
        message: "crm.cedarschema:107: action `crm/export_customers`: it has to be in `Action::\"tools/call\"`, or policies about all tool calls would miss it",
    },
    Mistake {
        name: "tool action on another resource",
        edit: |edit| {
            edit.replace("crm.cedarschema", "resource: [Tool],", "resource: [Server],");
        },
        message: "crm.cedarschema:9: action `crm/query_customers`: it has to apply to principal Agent and resource Tool",
    },
    Mistake {
        name: "tool action of somebody who is no agent",
        edit: |edit| {
            edit.replace("crm.cedarschema", "principal: [Agent],", "principal: [Agent, Server],");
            edit.remove("policies/guardrails.cedar");
        },
        message: "crm.cedarschema:9: action `crm/query_customers`: it has to apply to principal Agent and resource Tool",
    },
    Mistake {
        name: "all tool calls outside of their protocol",
        edit: |edit| {
            edit.replace("palisade.cedarschema", "action \"tools/call\" in [\"mcp\"];", "action \"tools/call\";");
        },
        message: "palisade.cedarschema:291: action `tools/call`: it has to be in `Action::\"mcp\"`, or policies about all calls of protocol mcp would miss it",
    },
    Mistake {
        name: "an MCP action outside of its protocol",
        edit: |edit| {
            edit.replace("palisade.cedarschema", "in [\"mcp\"] appliesTo", "appliesTo");
        },
        message: "palisade.cedarschema:318: action `completion/complete`: it has to be in `Action::\"mcp\"`, or policies about all calls of protocol mcp would miss it",
    },
    Mistake {
        name: "an A2A action in the group of another protocol",
        edit: |edit| {
            edit.replace("palisade.cedarschema", "in [\"a2a\"] appliesTo", "in [\"mcp\"] appliesTo");
        },
        message: "palisade.cedarschema:356: action `SendMessage`: it has to be in `Action::\"a2a\"`, or policies about all calls of protocol a2a would miss it",
    },
    Mistake {
        name: "an HTTP action outside of its protocol",
        edit: |edit| {
            edit.replace("palisade.cedarschema", "\"OPTIONS\" in [\"http\"]", "\"OPTIONS\"");
        },
        message: "palisade.cedarschema:383: action `GET`: it has to be in `Action::\"http\"`, or policies about all calls of protocol http would miss it",
    },
    Mistake {
        name: "a gRPC action outside of its protocol",
        edit: |edit| {
            edit.replace("palisade.cedarschema", "\"grpc:invoke\" in [\"grpc\"]", "\"grpc:invoke\"");
            edit.replace("targets.toml", "protocol = \"http\"", "protocol = \"grpc\"");
            edit.remove("policies/everyone.cedar");
        },
        message: "palisade.cedarschema:393: action `grpc:invoke`: it has to be in `Action::\"grpc\"`, or policies about all calls of protocol grpc would miss it",
    },
    Mistake {
        name: "an action of a namespace",
        edit: |edit| edit.write("new.cedarschema", "\nnamespace N {\n  action \"pings\";\n}\n"),
        message: "new.cedarschema:2: action `N::Action::\"pings\"` is in a namespace; expected every action outside of any",
    },
    Mistake {
        name: "an action of a namespace in the place of one of ours",
        edit: |edit| {
            edit.replace(
                "palisade.cedarschema",
                "  \"ping\",                             // are you there? Gone in 2026-07-28\n",
                "",
            );
            edit.replace("policies/everyone.cedar", "    Action::\"ping\",\n", "");
            edit.write("new.cedarschema", "\nnamespace N {\n  action \"ping\" appliesTo { principal: [Agent], resource: [Server], context: Shared };\n}\n")
        },
        message: "new.cedarschema:2: action `N::Action::\"ping\"` is in a namespace; expected every action outside of any",
    },
    Mistake {
        name: "agent with other attributes",
        edit: |edit| {
            edit.replace(
                "palisade.cedarschema",
                "  trust_domain: String,\n  // The <namespace>",
                "  trust_domain: Long,\n  // The <namespace>",
            );
            edit.write(
                "agents.entities.json",
                edit.text("agents.entities.json")
                    .split("{\n    \"uid\": { \"type\": \"Agent\"")
                    .next()
                    .unwrap()
                    .trim_end()
                    .trim_end_matches(',')
                    .to_owned()
                    + "]",
            )
        },
        message: "palisade.cedarschema:33: entity `Agent`: attribute `trust_domain` has to have type `String`, not `Long`",
    },
    Mistake {
        name: "an endpoint with an attribute that nobody supplies",
        edit: |edit| {
            edit.replace(
                "palisade.cedarschema",
                "  path: String,\n};\n\n\n// ---- What is known",
                "  path: String,\n  owner: String,\n};\n\n\n// ---- What is known",
            )
        },
        message: "palisade.cedarschema:101: entity `Endpoint`: attribute `owner` is none that Palisade supplies",
    },
];
