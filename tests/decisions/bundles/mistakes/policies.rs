//! Policies: their text, types, annotations and size.

use crate::bundles::Mistake;

pub const MISTAKES: &[Mistake] = &[
    Mistake {
        name: "no policies",
        edit: |edit| {
            edit.remove("policies/agents.cedar");
            edit.remove("policies/everyone.cedar");
            edit.remove("policies/guardrails.cedar");
            edit.remove("policies/control.cedar");
        },
        message: "there is no policy at all, so nothing could ever be permitted; expected at least one *.cedar file",
    },
    Mistake {
        name: "an endpoint that cannot be in another one",
        edit: |edit| {
            edit.replace("palisade.cedarschema", "entity Endpoint in [Server, Endpoint]", "entity Endpoint in [Server]")
        },
        message: "palisade.cedarschema:101: entity `Endpoint`: it has to be declared `in [Server, Endpoint]`, where Palisade puts it; `Endpoint` is missing",
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
        edit: |edit| edit.policy("@id(\"new\")\n@reason(\"r\")\n@rate(\"x\")\npermit (principal, action, resource);"),
        message: "policies/new.cedar:2: annotation `@rate` is unknown; expected one of @id, @reason, @message, @control, @step_up, @scopes, @limit, @grant",
    },
    Mistake {
        name: "misspelled annotation",
        edit: |edit| edit.policy("@id(\"new\")\n@reson(\"r\")\npermit (principal, action, resource);"),
        message: "policies/new.cedar:2: annotation `@reson` is unknown; expected one of @id, @reason, @message, @control, @step_up, @scopes, @limit, @grant",
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
        name: "a login that is none",
        edit: |edit| {
            edit.policy(
                "\n@id(\"new\") @reason(\"r\") @step_up(\"mfa  max_age=60\") permit (principal, action, resource);",
            )
        },
        message: "policies/new.cedar:3: policy `new`: `@step_up`: expected names separated by single spaces, of up to 512 visible ASCII characters without `\"` and `\\`",
    },
    Mistake {
        name: "an age without a number",
        edit: |edit| {
            edit.policy("\n@id(\"new\") @reason(\"r\") @step_up(\"max_age=5m\") permit (principal, action, resource);")
        },
        message: "policies/new.cedar:3: policy `new`: `@step_up`: `max_age` is from 1 to 31622400 seconds, long enough for a client to come back with its new token",
    },
    Mistake {
        name: "a login that is over before its token is shown",
        edit: |edit| {
            edit.policy(
                "\n@id(\"new\") @reason(\"r\") @step_up(\"mfa max_age=0\") permit (principal, action, resource);",
            )
        },
        message: "policies/new.cedar:3: policy `new`: `@step_up`: `max_age` is from 1 to 31622400 seconds, long enough for a client to come back with its new token",
    },
    Mistake {
        name: "no scopes",
        edit: |edit| edit.policy("\n@id(\"new\") @reason(\"r\") @scopes permit (principal, action, resource);"),
        message: "policies/new.cedar:3: policy `new`: `@scopes`: expected names separated by single spaces, of up to 512 visible ASCII characters without `\"` and `\\`",
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
        message: "policies/new.cedar:5: policy id `new` is there twice, first in policies/new.cedar:2",
    },
    Mistake {
        name: "id of another file",
        edit: |edit| {
            edit.policy("@id(\"only-agents-namespace\")\n@reason(\"r\")\npermit (principal, action, resource);")
        },
        message: "policies/new.cedar:2: policy id `only-agents-namespace` is there twice, first in policies/guardrails.cedar:4",
    },
    Mistake {
        name: "an id with a line break",
        edit: |edit| {
            edit.policy("@id(\"a\\nverdict PERMIT\")\n@reason(\"r\")\nforbid (principal, action, resource);");
        },
        message: "policies/new.cedar:2: `@id`: expected an id of 1 to 256 bytes, not blank and without control characters",
    },
    Mistake {
        name: "a blank id",
        edit: |edit| edit.policy("@id(\"  \")\n@reason(\"r\")\nforbid (principal, action, resource);"),
        message: "policies/new.cedar:2: `@id`: expected an id of 1 to 256 bytes, not blank and without control characters",
    },
    Mistake {
        name: "a reason that every record would repeat",
        edit: |edit| {
            let reason = "r".repeat(2049);
            edit.policy(&format!("@id(\"new\")\n@reason(\"{reason}\")\nforbid (principal, action, resource);"));
        },
        message: "policies/new.cedar:2: `@reason` of policy `new` is longer than 2048 bytes",
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
];
