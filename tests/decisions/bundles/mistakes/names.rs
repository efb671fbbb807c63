//! Names in policies that nothing declares, and that nothing can be.

use crate::bundles::Mistake;

pub const MISTAKES: &[Mistake] = &[
    Mistake {
        name: "an entity of a type of one's own that nobody declares",
        edit: |edit| {
            edit.write("team.cedarschema", "entity Team;\n");
            edit.replace("palisade.cedarschema", "entity Agent in [", "entity Agent in [Team, ");
            edit.write(
                "teams.entities.json",
                "[{\"uid\": {\"type\": \"Team\", \"id\": \"contractors\"}, \"attrs\": {}, \"parents\": []}]",
            );
            edit.policy("@id(\"new\")\n@reason(\"r\")\nforbid (principal in Team::\"contractros\", action, resource);");
        },
        message: "policies/new.cedar:2: policy `new` names `Team::\"contractros\"`, which nothing in the bundle declares",
    },
    Mistake {
        name: "endpoint outside of its target",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\nforbid (principal, action in Action::\"http\", resource in Endpoint::\"crm-status/admin\");")
        },
        message: "policies/new.cedar:2: policy `new` names `Endpoint::\"crm-status/admin\"`, which no call can be about: its path is neither below the target's `path_prefix` nor that of its `resource_metadata`",
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
            edit.policy(&format!("@id(\"new\")\n@reason(\"r\")\nforbid (principal, action in Action::\"http\", resource in Endpoint::\"crm-status/status{}\");", "/a".repeat(32)))
        },
        message: "policies/new.cedar:2: policy `new` names `Endpoint::\"crm-status/status/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a\"`, which no call can be about: expected at most 32 `/` in its path",
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
];
