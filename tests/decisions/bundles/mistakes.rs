//! The mistakes, in the order of the files of a bundle, each with the message it gets.

use super::Mistake;

/// Every mistake that is refused.
pub const MISTAKES: &[Mistake] = &[
    Mistake {
        name: "unknown file",
        edit: |edit| edit.write("policies.rego", "package x"),
        message: "policies.rego: a bundle knows no such file; expected *.cedarschema, *.cedar, *.entities.json, *.tools.json, targets.toml or *.md",
    },
    Mistake {
        name: "unknown file without an ending",
        edit: |edit| edit.write("Makefile", ""),
        message: "Makefile: a bundle knows no such file; expected *.cedarschema, *.cedar, *.entities.json, *.tools.json, targets.toml or *.md",
    },
    Mistake {
        name: "a JSON file of no kind",
        edit: |edit| edit.write("data.json", "[]"),
        message: "data.json: a bundle knows no such file; expected *.cedarschema, *.cedar, *.entities.json, *.tools.json, targets.toml or *.md",
    },
    Mistake {
        name: "no schema",
        edit: |edit| {
            edit.remove("palisade.cedarschema");
            edit.remove("crm.cedarschema");
        },
        message: "there is no schema; expected at least one *.cedarschema file",
    },
    Mistake { name: "no targets", edit: |edit| edit.remove("targets.toml"), message: "there is no targets.toml" },
    Mistake {
        name: "the shared schema is missing",
        edit: |edit| edit.remove("palisade.cedarschema"),
        message: "crm.cedarschema:‹any›: failed to resolve types: ‹any› (‹any› has not been declared as a common or entity type)",
    },
    Mistake {
        name: "not UTF-8",
        edit: |edit| edit.write("policies/agents.cedar", b"permit (principal, action, resource); // \xff"),
        message: "policies/agents.cedar: is not UTF-8 text",
    },
    Mistake {
        name: "a byte order mark",
        edit: |edit| edit.write("targets.toml", format!("\u{feff}{}", edit.text("targets.toml"))),
        message: "targets.toml: holds a byte order mark or NUL; expected plain UTF-8 text",
    },
    Mistake {
        name: "a NUL",
        edit: |edit| edit.replace("policies/everyone.cedar", "status page", "status\0page"),
        message: "policies/everyone.cedar: holds a byte order mark or NUL; expected plain UTF-8 text",
    },
    Mistake {
        name: "a second targets.toml",
        edit: |edit| edit.write("more/targets.toml", ""),
        message: "targets.toml: there is `more/targets.toml` as well; expected one in a bundle",
    },
    Mistake {
        name: "schema syntax",
        edit: |edit| edit.write("new.cedarschema", "\nentity X\nentity Y;\n"),
        message: "new.cedarschema:3: error parsing schema: unexpected token `entity`: expected `,`, `;`, `=`, `{`, `enum`, `in`, or `tags`",
    },
    Mistake {
        name: "schema with an unknown type",
        edit: |edit| edit.write("new.cedarschema", "\nentity X { a: Strin };\n"),
        message: "new.cedarschema:2: failed to resolve type: Strin (`Strin` has not been declared as a common or entity type)",
    },
    Mistake {
        name: "an unknown type in the second file",
        edit: |edit| edit.replace("palisade.cedarschema", "trust_domain: String,", "trust_domain: Strin,"),
        message: "palisade.cedarschema:37: failed to resolve type: Strin (`Strin` has not been declared as a common or entity type)",
    },
    Mistake {
        name: "schema with an entity twice",
        edit: |edit| edit.write("new.cedarschema", "\n\nentity Agent;\n"),
        message: "new.cedarschema:3: error parsing schema: `Agent` is declared twice",
    },
    Mistake {
        name: "schema with an action twice",
        edit: |edit| edit.write("new.cedarschema", "\n\naction \"ping\";\n"),
        message: "new.cedarschema:3: error parsing schema: `ping` is declared twice",
    },
    Mistake {
        name: "action in an unknown group",
        edit: |edit| edit.write("new.cedarschema", "\naction \"x\" in [\"nowhere\"];\n"),
        message: "*.cedarschema: undeclared action: Action::\"nowhere\" (any actions appearing as parents need to be declared as actions)",
    },
    Mistake {
        name: "tool action without a registry entry",
        edit: |edit| {
            edit.write("new.cedarschema", "\naction \"crm/new\" in [\"tools/call\"] appliesTo { principal: [Agent], resource: [Tool], context: { input: {}, now: datetime, local: Local, request: RequestFacts, body?: BodyFacts, mcp?: McpFacts, a2a?: A2aFacts, user?: User, delegation?: Delegation, scopes?: Set<String> } };\n")
        },
        message: "new.cedarschema:2: action `crm/new`: its resource is a Tool, but no *.tools.json registers it",
    },
    Mistake {
        name: "tool action that is written without quotes",
        edit: |edit| {
            edit.write("new.cedarschema", "\naction new_tool in [\"tools/call\"] appliesTo { principal: [Agent], resource: [Tool], context: { input: {}, now: datetime, local: Local, request: RequestFacts, body?: BodyFacts, mcp?: McpFacts, a2a?: A2aFacts, user?: User, delegation?: Delegation, scopes?: Set<String> } };\n")
        },
        message: "new.cedarschema:2: action `new_tool`: its resource is a Tool, but no *.tools.json registers it",
    },
    Mistake {
        name: "tool without an action",
        edit: |edit| edit.replace("crm.tools.json", "\"get_customer\"", "\"find_customer\""),
        message: "crm.cedarschema:30: action `crm/get_customer`: its resource is a Tool, but no *.tools.json registers it",
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
        message: "crm.cedarschema:30: action `crm/get_customer`: its context lacks the attribute `input`",
    },
    Mistake {
        name: "context attribute of another type",
        edit: |edit| edit.replace("palisade.cedarschema", "  hour: Long,", "  hour: String,"),
        message: "policies/guardrails.cedar:‹any›: for policy `changes-in-office-hours`, unexpected type: expected Long but saw String",
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
        message: "crm.cedarschema:30: action `crm/get_customer`: context attribute `input` has to be a record",
    },
    Mistake {
        name: "argument of an entity type",
        edit: |edit| edit.replace("crm.cedarschema", "customer_id: Long", "customer: User"),
        message: "crm.cedarschema:30: action `crm/get_customer`: context attribute `input`: `customer`: no argument can have type `User`",
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
        message: "crm.cedarschema:91: action `crm/export_customers`: it has to be in `Action::\"tools/call\"`, or policies about all tool calls would miss it",
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
        message: "crm.cedarschema:91: action `crm/export_customers`: it has to be in `Action::\"tools/call\"`, or policies about all tool calls would miss it",
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
        message: "palisade.cedarschema:200: action `tools/call`: it has to be in `Action::\"mcp\"`, or policies about all calls of protocol mcp would miss it",
    },
    Mistake {
        name: "an MCP action outside of its protocol",
        edit: |edit| {
            edit.replace("palisade.cedarschema", "in [\"mcp\"] appliesTo", "appliesTo");
        },
        message: "palisade.cedarschema:223: action `completion/complete`: it has to be in `Action::\"mcp\"`, or policies about all calls of protocol mcp would miss it",
    },
    Mistake {
        name: "an A2A action in the group of another protocol",
        edit: |edit| {
            edit.replace("palisade.cedarschema", "in [\"a2a\"] appliesTo", "in [\"mcp\"] appliesTo");
        },
        message: "palisade.cedarschema:250: action `SendMessage`: it has to be in `Action::\"a2a\"`, or policies about all calls of protocol a2a would miss it",
    },
    Mistake {
        name: "an HTTP action outside of its protocol",
        edit: |edit| {
            edit.replace("palisade.cedarschema", "\"OPTIONS\" in [\"http\"]", "\"OPTIONS\"");
        },
        message: "palisade.cedarschema:277: action `GET`: it has to be in `Action::\"http\"`, or policies about all calls of protocol http would miss it",
    },
    Mistake {
        name: "a gRPC action outside of its protocol",
        edit: |edit| {
            edit.replace("palisade.cedarschema", "\"grpc:invoke\" in [\"grpc\"]", "\"grpc:invoke\"");
            edit.replace("targets.toml", "protocol = \"http\"", "protocol = \"grpc\"");
            edit.remove("policies/everyone.cedar");
        },
        message: "palisade.cedarschema:287: action `grpc:invoke`: it has to be in `Action::\"grpc\"`, or policies about all calls of protocol grpc would miss it",
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
        message: "palisade.cedarschema:94: entity `Endpoint`: attribute `owner` is none that Palisade supplies",
    },
    Mistake {
        name: "no policies",
        edit: |edit| {
            edit.remove("policies/agents.cedar");
            edit.remove("policies/everyone.cedar");
            edit.remove("policies/guardrails.cedar");
        },
        message: "there is no policy at all, so nothing could ever be permitted; expected at least one *.cedar file",
    },
    Mistake {
        name: "an endpoint that cannot be in another one",
        edit: |edit| {
            edit.replace("palisade.cedarschema", "entity Endpoint in [Server, Endpoint]", "entity Endpoint in [Server]")
        },
        message: "palisade.cedarschema:94: entity `Endpoint`: it has to be declared `in [Server, Endpoint]`, where Palisade puts it; `Endpoint` is missing",
    },
    Mistake {
        name: "an empty policy file",
        edit: |edit| edit.write("policies/agents.cedar", ""),
        message: "policies/agents.cedar: holds no policy; remove the file if that is meant",
    },
    Mistake {
        name: "a policy file of comments",
        edit: |edit| edit.write("policies/agents.cedar", "// to be done\n"),
        message: "policies/agents.cedar: holds no policy; remove the file if that is meant",
    },
    Mistake {
        name: "policy syntax",
        edit: |edit| edit.policy("permit (principal, action, resource) when { context. };"),
        message: "policies/new.cedar:2: unexpected token `}`: expected identifier",
    },
    Mistake {
        name: "policy without its end",
        edit: |edit| edit.policy("@id(\"new\")\n@reason(\"r\")\npermit (principal, action, resource)"),
        message: "policies/new.cedar:4: unexpected end of input: expected `;` or identifier",
    },
    Mistake {
        name: "unknown attribute",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\npermit (principal, action == Action::\"ping\", resource) when { principal.nme == \"x\" };")
        },
        message: "policies/new.cedar:4: for policy `new`, attribute `nme` on entity type `Agent` not found (did you mean `namespace`?)",
    },
    Mistake {
        name: "types that do not fit",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\npermit (principal, action == Action::\"ping\", resource) when { context.local.hour == \"8\" };")
        },
        message: "policies/new.cedar:4: the types Long and String are not compatible (for policy `new`, both operands to a `==` expression must have compatible types. Types must be exactly equal to be compatible)",
    },
    Mistake {
        name: "optional attribute that is not asked for first",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\npermit (principal, action == Action::\"ping\", resource) when { context.user == User::\"x\" };")
        },
        message: "policies/new.cedar:4: for policy `new`, unable to guarantee safety of access to optional attribute `user` in context for Action::\"ping\" (try testing for the attribute's presence with `context has user && ..`)",
    },
    Mistake {
        name: "unknown action",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\npermit (principal, action == Action::\"pong\", resource);")
        },
        message: "policies/new.cedar:4: for policy `new`, unrecognized action `Action::\"pong\"` (did you mean ‹any›?)",
    },
    Mistake {
        name: "unknown entity type",
        edit: |edit| edit.policy("@id(\"new\")\n@reason(\"r\")\npermit (principal == Robot::\"x\", action, resource);"),
        message: "policies/new.cedar:4: for policy `new`, unrecognized entity type `Robot` (did you mean `Tool`?)",
    },
    Mistake {
        name: "action and resource that do not go together",
        edit: |edit| {
            edit.policy(
                "@id(\"new\")\n@reason(\"r\")\npermit (principal, action == Action::\"ping\", resource is Tool);",
            )
        },
        message: "policies/new.cedar:2: for policy `new`, policy is impossible: the policy expression evaluates to false for all valid requests",
    },
    Mistake {
        name: "policy that can never hold",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\npermit (principal, action == Action::\"ping\", resource) when { false };")
        },
        message: "policies/new.cedar:2: for policy `new`, policy is impossible: the policy expression evaluates to false for all valid requests",
    },
    Mistake {
        name: "dereference at level 2",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\npermit (principal, action == Action::\"crm/get_customer\", resource) when { resource.server.protocol == \"mcp\" };")
        },
        message: "policies/new.cedar:4: for policy `new`, this policy requires level 2, which exceeds the maximum allowed level (1)",
    },
    Mistake {
        name: "extension that is not called on a literal",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\nforbid (principal, action == Action::\"crm/export_customers\", resource) when { decimal(context.input.destination_url).greaterThan(decimal(\"10.0\")) };")
        },
        message: "policies/new.cedar:4: for policy `new`, extension constructors may not be called with non-literal expressions (consider applying extension constructors inside attribute values when constructing entity or context data)",
    },
    Mistake {
        name: "extension on a bad literal",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\npermit (principal, action == Action::\"ping\", resource) when { context.now > datetime(\"2026-13-01\") };")
        },
        message: "policies/new.cedar:4: for policy `new`, error during extension function argument validation: failed to parse as a datetime value: `\"2026-13-01\"` (valid datetime strings start with `YYYY-MM-DD` and may optionally include `THH:MM:SS` plus `Z`, `.SSSZ`, or an offset like `+0700`)",
    },
    Mistake {
        name: "unknown annotation",
        edit: |edit| edit.policy("@id(\"new\")\n@reason(\"r\")\n@limit(\"x\")\npermit (principal, action, resource);"),
        message: "policies/new.cedar:2: annotation `@limit` is unknown; expected one of @id, @reason, @message, @control",
    },
    Mistake {
        name: "misspelled annotation",
        edit: |edit| edit.policy("@id(\"new\")\n@reson(\"r\")\npermit (principal, action, resource);"),
        message: "policies/new.cedar:2: annotation `@reson` is unknown; expected one of @id, @reason, @message, @control",
    },
    Mistake {
        name: "no id",
        edit: |edit| edit.policy("@reason(\"r\")\npermit (principal, action, resource);"),
        message: "policies/new.cedar:2: this policy has no `@id(\"…\")`",
    },
    Mistake {
        name: "empty id",
        edit: |edit| edit.policy("@id(\"\")\n@reason(\"r\")\npermit (principal, action, resource);"),
        message: "policies/new.cedar:2: this policy has no `@id(\"…\")`",
    },
    Mistake {
        name: "no reason",
        edit: |edit| edit.policy("@id(\"new\")\npermit (principal, action, resource);"),
        message: "policies/new.cedar:2: policy `new` has no `@reason(\"…\")`",
    },
    Mistake {
        name: "empty reason",
        edit: |edit| edit.policy("@id(\"new\")\n@reason(\"\")\npermit (principal, action, resource);"),
        message: "policies/new.cedar:2: policy `new` has no `@reason(\"…\")`",
    },
    Mistake {
        name: "annotation twice",
        edit: |edit| edit.policy("@id(\"new\")\n@id(\"other\")\n@reason(\"r\")\npermit (principal, action, resource);"),
        message: "policies/new.cedar:3: duplicate annotation: @id",
    },
    Mistake {
        name: "id twice in one file",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\npermit (principal, action, resource);\n@id(\"new\")\n@reason(\"r\")\npermit (principal, action, resource);")
        },
        message: "policies/new.cedar:5: policy id `new` is there twice",
    },
    Mistake {
        name: "id of another file",
        edit: |edit| {
            edit.policy("@id(\"only-agents-namespace\")\n@reason(\"r\")\npermit (principal, action, resource);")
        },
        message: "policies/new.cedar:2: policy id `only-agents-namespace` is there twice",
    },
    Mistake {
        name: "a template",
        edit: |edit| edit.policy("@id(\"new\")\n@reason(\"r\")\npermit (principal == ?principal, action, resource);"),
        message: "policies/new.cedar:2: templates (`?principal`, `?resource`) are not supported",
    },
    Mistake {
        name: "parentheses that would overflow a parser's stack",
        edit: |edit| {
            edit.policy(&format!(
                "@id(\"new\")\n@reason(\"r\")\nforbid (principal, action, resource)\nwhen {{ {}true{} }};",
                "(".repeat(500),
                ")".repeat(500)
            ))
        },
        message: "policies/new.cedar:5: brackets are nested deeper than 64 levels",
    },
    Mistake {
        name: "conditions within conditions, each of which doubles the work",
        edit: |edit| {
            edit.policy(&format!(
                "@id(\"new\")\n@reason(\"r\")\nforbid (principal, action, resource)\nwhen {{ {}true{} }};",
                "if true then ".repeat(40),
                " else true".repeat(40)
            ))
        },
        message: "policies/new.cedar:5: more than 16 `if` stand within one another",
    },
    Mistake {
        name: "a chain of operators that the evaluator does not go down",
        edit: |edit| {
            edit.policy(&format!(
                "@id(\"new\")\n@reason(\"r\")\nforbid (principal, action, resource)\nwhen {{ {}context.local.hour < 8 }};",
                "context.local.hour < 9 && ".repeat(1_000)
            ))
        },
        message: "policies/new.cedar:2: the conditions of a policy are nested deeper than 256 levels, of which each `&&`, `||` or other operator of a chain is one: compare with a set, or write several policies",
    },
    Mistake {
        name: "a chain of operators that overflows a stack when it is thrown away",
        edit: |edit| {
            edit.policy(&format!(
                "@id(\"new\")\n@reason(\"r\")\nforbid (principal, action, resource)\nwhen {{ {}true }};",
                "true && ".repeat(1_000_000)
            ))
        },
        message: "policies/new.cedar:5: a policy holds more than 10000 operators",
    },
    Mistake {
        name: "a schema of types within types",
        edit: |edit| {
            edit.write("deep.cedarschema", format!("type Deep = {}Long{};", "Set<".repeat(5_000), ">".repeat(5_000)))
        },
        message: "deep.cedarschema:1: brackets are nested deeper than 64 levels",
    },
    Mistake {
        name: "endpoint of an unknown server",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\npermit (principal, action == Action::\"GET\", resource == Endpoint::\"crm-statsu/status\");")
        },
        message: "policies/new.cedar:2: policy `new` names `Endpoint::\"crm-statsu/status\"`, which no call can be about: expected the name of an http or grpc target before the first `/`",
    },
    Mistake {
        name: "endpoint without its server",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\nforbid (principal, action in Action::\"http\", resource == Endpoint::\"/status\");")
        },
        message: "policies/new.cedar:2: policy `new` names `Endpoint::\"/status\"`, which no call can be about: expected the name of an http or grpc target before the first `/`",
    },
    Mistake {
        name: "endpoint whose path no request has",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\nforbid (principal, action in Action::\"http\", resource == Endpoint::\"crm-status/status/../x\");")
        },
        message: "policies/new.cedar:2: policy `new` names `Endpoint::\"crm-status/status/../x\"`, which no call can be about: its path is not in canonical form",
    },
    Mistake {
        name: "endpoint deeper than others can be in",
        edit: |edit| {
            edit.policy(&format!("@id(\"new\")\n@reason(\"r\")\nforbid (principal, action in Action::\"http\", resource in Endpoint::\"crm-status{}\");", "/a".repeat(33)))
        },
        message: "policies/new.cedar:2: policy `new` names `Endpoint::\"crm-status/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a\"`, which no call can be about: expected at most 32 `/` in its path",
    },
    Mistake {
        name: "a path of messages that no request has",
        edit: |edit| edit.replace("targets.toml", "message_paths = [\"/mcp\"]", "message_paths = [\"mcp\"]"),
        message: "targets.toml: target `crm`: `message_paths` have to be paths as requests have them: no query, no dot segments",
    },
    Mistake {
        name: "paths of messages for plain HTTP",
        edit: |edit| {
            edit.replace("targets.toml", "name = \"crm-status\"", "name = \"crm-status\"\nmessage_paths = [\"/x\"]")
        },
        message: "targets.toml: target `crm-status`: `message_paths` are for targets that speak mcp or a2a",
    },
    Mistake {
        name: "agent group that nothing declares",
        edit: |edit| {
            edit.policy(
                "@id(\"new\")\n@reason(\"r\")\nforbid (principal in AgentGroup::\"readonly\", action, resource);",
            )
        },
        message: "policies/new.cedar:2: policy `new` names `AgentGroup::\"readonly\"`, which nothing in the bundle declares",
    },
    Mistake {
        name: "agent group that nothing declares, in a condition",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\npermit (principal, action == Action::\"ping\", resource) when { principal in [AgentGroup::\"read-only\", AgentGroup::\"readonly\"] };")
        },
        message: "policies/new.cedar:2: policy `new` names `AgentGroup::\"readonly\"`, which nothing in the bundle declares",
    },
    Mistake {
        name: "server that is no target",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\npermit (principal, action, resource in Server::\"crn\");")
        },
        message: "policies/new.cedar:2: policy `new` names `Server::\"crn\"`, which nothing in the bundle declares",
    },
    Mistake {
        name: "server group that nothing declares",
        edit: |edit| {
            edit.policy(
                "@id(\"new\")\n@reason(\"r\")\npermit (principal, action, resource in ServerGroup::\"costumer-data\");",
            )
        },
        message: "policies/new.cedar:2: policy `new` names `ServerGroup::\"costumer-data\"`, which nothing in the bundle declares",
    },
    Mistake {
        name: "tool that nothing registers",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\npermit (principal, action == Action::\"crm/get_customer\", resource == Tool::\"crm/get_customers\");")
        },
        message: "policies/new.cedar:2: policy `new` names `Tool::\"crm/get_customers\"`, which nothing in the bundle declares",
    },
    Mistake {
        name: "tool group that nothing declares",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\nforbid (principal, action, resource in ToolGroup::\"exfil\");")
        },
        message: "policies/new.cedar:2: policy `new` names `ToolGroup::\"exfil\"`, which nothing in the bundle declares",
    },
    Mistake {
        name: "agent that is no SPIFFE ID",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\npermit (principal == Agent::\"coder\", action, resource);")
        },
        message: "policies/new.cedar:2: policy `new` names `Agent::\"coder\"`, which is no SPIFFE ID: the scheme is not exactly `spiffe://`",
    },
    Mistake {
        name: "trust domain with its scheme",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\nforbid (principal in TrustDomain::\"spiffe://partner.example\", action, resource);")
        },
        message: "policies/new.cedar:2: policy `new` names `TrustDomain::\"spiffe://partner.example\"`, which no caller is of: expected the name of a trust domain, such as `example.org`",
    },
    Mistake {
        name: "trust domain in upper case",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\nforbid (principal, action, resource) when { principal in TrustDomain::\"Partner.example\" };")
        },
        message: "policies/new.cedar:2: policy `new` names `TrustDomain::\"Partner.example\"`, which no caller is of: expected the name of a trust domain, such as `example.org`",
    },
    Mistake {
        name: "namespace without its trust domain",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\nforbid (principal in Namespace::\"tools\", action, resource);")
        },
        message: "policies/new.cedar:2: policy `new` names `Namespace::\"tools\"`, which no caller is in: expected `<trust domain>/<namespace>`, such as `example.org/agents`",
    },
    Mistake {
        name: "namespace as SPIFFE IDs have it",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\nforbid (principal in Namespace::\"example.org/ns/tools\", action, resource);")
        },
        message: "policies/new.cedar:2: policy `new` names `Namespace::\"example.org/ns/tools\"`, which no caller is in: expected `<trust domain>/<namespace>`, such as `example.org/agents`",
    },
    Mistake {
        name: "namespace that ends in a slash",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\nforbid (principal, action, resource) unless { principal in Namespace::\"example.org/agents/\" };")
        },
        message: "policies/new.cedar:2: policy `new` names `Namespace::\"example.org/agents/\"`, which no caller is in: expected `<trust domain>/<namespace>`, such as `example.org/agents`",
    },
    Mistake {
        name: "agent with a trailing slash",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\npermit (principal == Agent::\"spiffe://example.org/ns/agents/sa/coder/\", action, resource);")
        },
        message: "policies/new.cedar:2: policy `new` names `Agent::\"spiffe://example.org/ns/agents/sa/coder/\"`, which is no SPIFFE ID: a path segment is empty, relative, or holds a character outside A-Z a-z 0-9 . - _",
    },
    Mistake {
        name: "entities that are no JSON",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  {
"#,
            )
        },
        message: "new.entities.json:3: EOF while parsing an object at line 3 column 0",
    },
    Mistake {
        name: "entities that are no array",
        edit: |edit| edit.write("new.entities.json", r#"{}"#),
        message: "new.entities.json:1: invalid type: map, expected a sequence at line 1 column 0",
    },
    Mistake {
        name: "entity without a uid",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  { "attrs": {}, "parents": [] }
]"#,
            )
        },
        message: "new.entities.json: every entity needs `\"uid\": {\"type\": …, \"id\": …}`",
    },
    Mistake {
        name: "entity with an implicit uid of another form",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  { "uid": { "__entity": { "type": "AgentGroup", "id": "x" } }, "attrs": {}, "parents": [] }
]"#,
            )
        },
        message: "new.entities.json: every entity needs `\"uid\": {\"type\": …, \"id\": …}`",
    },
    Mistake {
        name: "entity of a type of our own",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[

  { "uid": { "type": "Tool", "id": "crm/x" }, "attrs": {}, "parents": [] }
]"#,
            )
        },
        message: "new.entities.json:3: `Tool::\"crm/x\"`: entities of type Tool come from targets.toml and *.tools.json",
    },
    Mistake {
        name: "an action as an entity",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  { "uid": { "type": "Action", "id": "ping" }, "attrs": {}, "parents": [] }
]"#,
            )
        },
        message: "new.entities.json:2: `Action::\"ping\"`: entities of type Action come from targets.toml and *.tools.json",
    },
    Mistake {
        name: "entity of an unknown type",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  { "uid": { "type": "Robot", "id": "x" }, "attrs": {}, "parents": [] }
]"#,
            )
        },
        message: "new.entities.json: error during entity deserialization: entity `Robot::\"x\"` has type `Robot` which is not declared in the schema",
    },
    Mistake {
        name: "entity with an unknown attribute",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  { "uid": { "type": "AgentGroup", "id": "x" }, "attrs": { "colour": "red" }, "parents": [] }
]"#,
            )
        },
        message: "new.entities.json: error during entity deserialization: attribute `colour` on `AgentGroup::\"x\"` should not exist according to the schema",
    },
    Mistake {
        name: "parent of a type that is not allowed",
        edit: |edit| {
            edit.write("new.entities.json", r#"[
  { "uid": { "type": "AgentGroup", "id": "x" }, "attrs": {}, "parents": [{ "type": "ToolGroup", "id": "exfiltration" }] }
]"#)
        },
        message: "new.entities.json: entity does not conform to the schema: `AgentGroup::\"x\"` is not allowed to have an ancestor of type `ToolGroup` according to the schema",
    },
    Mistake {
        name: "entity twice",
        edit: |edit| {
            edit.write("new.entities.json", r#"[
  { "uid": { "type": "AgentGroup", "id": "read-only" }, "attrs": {}, "parents": [{ "type": "AgentGroup", "id": "high-risk" }] }
]"#)
        },
        message: "*.entities.json: duplicate entity entry `AgentGroup::\"read-only\"`",
    },
    Mistake {
        name: "groups in a circle",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  { "uid": { "type": "AgentGroup", "id": "a" }, "attrs": {}, "parents": [{ "type": "AgentGroup", "id": "b" }] },
  { "uid": { "type": "AgentGroup", "id": "b" }, "attrs": {}, "parents": [{ "type": "AgentGroup", "id": "a" }] }
]"#,
            )
        },
        message: "new.entities.json: transitive closure computation/enforcement error: input graph has a cycle containing vertex ‹any›",
    },
    Mistake {
        name: "agent that is no SPIFFE ID in a file",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  { "uid": { "type": "Agent", "id": "coder" }, "attrs": {}, "parents": [] }
]"#,
            )
        },
        message: "new.entities.json:2: `Agent::\"coder\"` is no SPIFFE ID: the scheme is not exactly `spiffe://`",
    },
    Mistake {
        name: "agent with an attribute of our own",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  {
    "uid": { "type": "Agent", "id": "spiffe://example.org/ns/agents/sa/x" },
    "attrs": { "namespace": "tools" },
    "parents": []
  }
]"#,
            )
        },
        message: "new.entities.json:3: attribute `namespace` of an agent follows from its SPIFFE ID: leave it out",
    },
    Mistake {
        name: "agent in a namespace that is not its own",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  {
    "uid": { "type": "Agent", "id": "spiffe://example.org/ns/tools/sa/x" },
    "parents": [{ "type": "Namespace", "id": "example.org/agents" }]
  }
]"#,
            )
        },
        message: "new.entities.json:3: parent `Namespace::\"example.org/agents\"` of an agent follows from its SPIFFE ID: leave it out",
    },
    Mistake {
        name: "agent in a trust domain that is not its own",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  {
    "uid": { "type": "Agent", "id": "spiffe://example.org/ns/agents/sa/x" },
    "parents": [{ "type": "TrustDomain", "id": "partner.example" }]
  }
]"#,
            )
        },
        message: "new.entities.json:3: parent `TrustDomain::\"partner.example\"` of an agent follows from its SPIFFE ID: leave it out",
    },
    Mistake {
        name: "a namespace with parents",
        edit: |edit| {
            edit.write("new.entities.json", r#"[
  { "uid": { "type": "Namespace", "id": "example.org/agents" }, "attrs": {}, "parents": [{ "type": "TrustDomain", "id": "partner.example" }] }
]"#)
        },
        message: "new.entities.json:2: `Namespace::\"example.org/agents\"`: entities of type Namespace follow from SPIFFE IDs",
    },
    Mistake {
        name: "agent in a group that nothing declares",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  {
    "uid": { "type": "Agent", "id": "spiffe://example.org/ns/agents/sa/x" },
    "parents": [{ "type": "AgentGroup", "id": "readonly" }]
  }
]"#,
            )
        },
        message: "new.entities.json:3: `Agent::\"spiffe://example.org/ns/agents/sa/x\"` is in `AgentGroup::\"readonly\"`, which nothing in the bundle declares",
    },
    Mistake {
        name: "agent with a tag of another type",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  { "uid": { "type": "Agent", "id": "spiffe://example.org/ns/agents/sa/x" }, "tags": { "team": 7 } }
]"#,
            )
        },
        message: "new.entities.json: entity does not conform to the schema: in tag `team` on `Agent::\"spiffe://example.org/ns/agents/sa/x\"`, type mismatch: value was expected to have type string, but it actually has type long: `7`",
    },
    Mistake {
        name: "agent with parents that are no array",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  { "uid": { "type": "Agent", "id": "spiffe://example.org/ns/agents/sa/x" }, "parents": {} }
]"#,
            )
        },
        message: "new.entities.json:2: `parents` has to be an array",
    },
    Mistake {
        name: "a misspelled member of an entity",
        edit: |edit| {
            edit.write("new.entities.json", r#"[
  { "uid": { "type": "Agent", "id": "spiffe://example.org/ns/agents/sa/x" }, "parent": [{ "type": "AgentGroup", "id": "read-only" }] }
]"#)
        },
        message: "new.entities.json:2: unknown member `parent` of an entity; expected `uid`, `attrs`, `parents` or `tags`",
    },
    Mistake {
        name: "a member of an entity twice",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  {
    "uid": { "type": "Agent", "id": "spiffe://example.org/ns/agents/sa/x" },
    "parents": [{ "type": "AgentGroup", "id": "read-only" }],
    "parents": []
  }
]"#,
            )
        },
        message: "new.entities.json:5: duplicate member `parents`",
    },
    Mistake {
        name: "tools that are no JSON",
        edit: |edit| {
            edit.write(
                "crm.tools.json",
                r#"{
  "server": "crm",
  "tools": [}
"#,
            )
        },
        message: "crm.tools.json:3: expected value at line 3 column 13",
    },
    Mistake {
        name: "an unknown member of a tool",
        edit: |edit| {
            edit.write(
                "crm.tools.json",
                r#"{
  "server": "crm",
  "tools": [
    { "name": "get_customer", "readonly": true }
  ]
}"#,
            )
        },
        message: "crm.tools.json:4: unknown field `readonly`, expected one of `name`, `description`, `classification`, `read_only`, `destructive`, `groups` at line 4 column 40",
    },
    Mistake {
        name: "a member of a tool twice",
        edit: |edit| {
            edit.write(
                "crm.tools.json",
                r#"{
  "server": "crm",
  "tools": [
    { "name": "get_customer", "read_only": true, "read_only": false }
  ]
}"#,
            )
        },
        message: "crm.tools.json:4: duplicate field `read_only` at line 4 column 60",
    },
    Mistake {
        name: "a member of a tool of another type",
        edit: |edit| {
            edit.write(
                "crm.tools.json",
                r#"{
  "server": "crm",
  "tools": [
    { "name": "get_customer", "read_only": "yes" }
  ]
}"#,
            )
        },
        message: "crm.tools.json:4: invalid type: string \"yes\", expected a boolean at line 4 column 48",
    },
    Mistake {
        name: "a tool without a name",
        edit: |edit| {
            edit.write(
                "crm.tools.json",
                r#"{
  "server": "crm",
  "tools": [
    { "read_only": true }
  ]
}"#,
            )
        },
        message: "crm.tools.json:4: missing field `name` at line 4 column 25",
    },
    Mistake {
        name: "tools of nobody",
        edit: |edit| {
            edit.write(
                "crm.tools.json",
                r#"{
  "tools": []
}"#,
            )
        },
        message: "crm.tools.json:3: missing field `server` at line 3 column 1",
    },
    Mistake {
        name: "tools of a server that is no target",
        edit: |edit| {
            edit.write(
                "crm.tools.json",
                r#"{
  "server": "crn",
  "tools": []
}"#,
            )
        },
        message: "crm.tools.json: server `crn` is no target",
    },
    Mistake {
        name: "tools of a server that speaks no MCP",
        edit: |edit| {
            edit.write(
                "crm.tools.json",
                r#"{
  "server": "crm-status",
  "tools": []
}"#,
            )
        },
        message: "crm.tools.json: server `crm-status` does not speak mcp, so it has no tools",
    },
    Mistake {
        name: "a tool twice",
        edit: |edit| edit.replace("crm.tools.json", "\"revenue_report\"", "\"get_customer\""),
        message: "crm.tools.json: tool `get_customer` is there twice",
    },
    Mistake {
        name: "a second registry for a server",
        edit: |edit| edit.write("more.tools.json", "{ \"server\": \"crm\", \"tools\": [] }"),
        message: "more.tools.json: server `crm` has another registry already",
    },
    Mistake {
        name: "tool in a group that nothing declares",
        edit: |edit| {
            edit.replace(
                "crm.tools.json",
                "[\"customer-data\", \"exfiltration\"]",
                "[\"customer-data\", \"exfiltratoin\"]",
            )
        },
        message: "crm.tools.json:42: tool `export_customers` is in `ToolGroup::\"exfiltratoin\"`, which nothing in the bundle declares",
    },
    Mistake {
        name: "targets that are no TOML",
        edit: |edit| edit.replace("targets.toml", "protocol = \"http\"", "protocol = http"),
        message: "targets.toml:22: string values must be quoted, expected literal string",
    },
    Mistake {
        name: "an unknown key of a target",
        edit: |edit| edit.replace("targets.toml", "classification = \"internal\"", "clasification = \"internal\""),
        message: "targets.toml:23: unknown field `clasification`, expected one of `name`, `protocol`, `classification`, `groups`, `denial`, `batches`, `message_paths`, `match`",
    },
    Mistake {
        name: "an unknown protocol",
        edit: |edit| edit.replace("targets.toml", "protocol = \"http\"", "protocol = \"https\""),
        message: "targets.toml:22: unknown variant `https`, expected one of `mcp`, `a2a`, `http`, `grpc`, `opaque`",
    },
    Mistake {
        name: "an unknown denial profile",
        edit: |edit| edit.replace("targets.toml", "denial = \"http_403\"", "denial = \"http_401\""),
        message: "targets.toml:11: unknown variant `http_401`, expected one of `http_403`, `json_rpc_200`, `tool_error_200`",
    },
    Mistake {
        name: "an unknown condition",
        edit: |edit| edit.replace("targets.toml", "path_prefix = \"/mcp\"", "path = \"/mcp\""),
        message: "targets.toml:17: unknown field `path`, expected one of `destination_principal`, `authority`, `context_extension`, `path_prefix`",
    },
    Mistake {
        name: "a key of a target twice",
        edit: |edit| {
            edit.replace(
                "targets.toml",
                "classification = \"confidential\"",
                "classification = \"confidential\"\nclassification = \"internal\"",
            )
        },
        message: "targets.toml:10: duplicate key",
    },
    Mistake {
        name: "a target without conditions",
        edit: |edit| {
            edit.write(
                "targets.toml",
                edit.text("targets.toml") + "\n[[target]]\nname = \"rest\"\nprotocol = \"http\"\nmatch = {}\n",
            )
        },
        message: "targets.toml: target `rest`: `match` names no condition, so it would take every call",
    },
    Mistake {
        name: "a target without a match",
        edit: |edit| {
            edit.write(
                "targets.toml",
                edit.text("targets.toml") + "\n[[target]]\nname = \"rest\"\nprotocol = \"http\"\n",
            )
        },
        message: "targets.toml:39: missing field `match`",
    },
    Mistake {
        name: "a target twice",
        edit: |edit| edit.replace("targets.toml", "name = \"crm-status\"", "name = \"crm\""),
        message: "targets.toml: target `crm`: is there twice",
    },
    Mistake {
        name: "a target with a slash in its name",
        edit: |edit| edit.replace("targets.toml", "name = \"crm-status\"", "name = \"crm/status\""),
        message: "targets.toml: target `crm/status`: a name is not empty and holds no `/`",
    },
    Mistake {
        name: "a target without a name",
        edit: |edit| edit.replace("targets.toml", "name = \"crm-status\"", "name = \"\""),
        message: "targets.toml: target ``: a name is not empty and holds no `/`",
    },
    Mistake {
        name: "a destination that is no SPIFFE ID",
        edit: |edit| {
            edit.replace(
                "targets.toml",
                "destination_principal = \"spiffe://example.org/ns/agents/sa/researcher\"",
                "destination_principal = \"researcher\"",
            )
        },
        message: "targets.toml: target `researcher`: `destination_principal` is no SPIFFE ID: the scheme is not exactly `spiffe://`",
    },
    Mistake {
        name: "a path without its slash",
        edit: |edit| edit.replace("targets.toml", "path_prefix = \"/status\"", "path_prefix = \"status\""),
        message: "targets.toml: target `crm-status`: `path_prefix` has to start with `/`",
    },
    Mistake {
        name: "a path that can never match",
        edit: |edit| edit.replace("targets.toml", "path_prefix = \"/status\"", "path_prefix = \"/a/../status\""),
        message: "targets.toml: target `crm-status`: `path_prefix` has to be a path as requests have it: no query, no dot segments",
    },
    Mistake {
        name: "a path with a query",
        edit: |edit| edit.replace("targets.toml", "path_prefix = \"/status\"", "path_prefix = \"/status?x=1\""),
        message: "targets.toml: target `crm-status`: `path_prefix` has to be a path as requests have it: no query, no dot segments",
    },
    Mistake {
        name: "an authority with a port",
        edit: |edit| edit.replace("targets.toml", "path_prefix = \"/status\"", "authority = \"crm.example.org:8443\""),
        message: "targets.toml: target `crm-status`: `authority` has to be a lower-case host without port",
    },
    Mistake {
        name: "an authority in upper case",
        edit: |edit| edit.replace("targets.toml", "path_prefix = \"/status\"", "authority = \"CRM.example.org\""),
        message: "targets.toml: target `crm-status`: `authority` has to be a lower-case host without port",
    },
    Mistake {
        name: "a denial profile for what is no MCP",
        edit: |edit| {
            edit.replace(
                "targets.toml",
                "name = \"crm-status\"\nprotocol = \"http\"",
                "name = \"crm-status\"\nprotocol = \"http\"\ndenial = \"tool_error_200\"",
            )
        },
        message: "targets.toml: target `crm-status`: `denial` is for targets that speak mcp or a2a",
    },
    Mistake {
        name: "batches for what is no MCP",
        edit: |edit| {
            edit.replace(
                "targets.toml",
                "name = \"crm-status\"\nprotocol = \"http\"",
                "name = \"crm-status\"\nprotocol = \"http\"\nbatches = \"all_or_nothing\"",
            )
        },
        message: "targets.toml: target `crm-status`: `batches` is for targets that speak mcp",
    },
    Mistake {
        name: "a target group that no policy and no file knows",
        edit: |edit| edit.replace("targets.toml", "groups = [\"customer-data\"]", "groups = [\"costumer-data\"]"),
        message: "policies/agents.cedar:48: policy `auditor-reads-customer-systems` names `ServerGroup::\"customer-data\"`, which nothing in the bundle declares",
    },
];

/// Mistakes that are accepted, and why: whoever refuses one moves it up.
pub const ACCEPTED: &[Mistake] = &[
    Mistake {
        name: "message on a permit",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\n@message(\"welcome\")\npermit (principal, action, resource);")
        },
        message: "a permit has nobody to tell anything",
    },
    Mistake {
        name: "user group that nothing declares",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\npermit (principal, action == Action::\"ping\", resource) when { context has user && context.user in UserGroup::\"finanace\" };")
        },
        message: "users come with verified tokens, and their groups with them",
    },
    Mistake {
        name: "a target behind one that takes all its calls",
        edit: |edit| edit.replace("targets.toml", "path_prefix = \"/mcp\"", ""),
        message: "the first target that matches is taken",
    },
];
