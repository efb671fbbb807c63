//! Targets.

use crate::bundles::Mistake;

pub const MISTAKES: &[Mistake] = &[
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
        name: "a path of streams that no request has",
        edit: |edit| {
            edit.replace("targets.toml", "message_paths = [\"/mcp\"]", "stream_paths = [\"/sse?x\"]");
        },
        message: "targets.toml: target `crm`: `stream_paths` have to be paths as requests have them: no query, no dot segments",
    },
    Mistake {
        name: "paths of streams for an agent",
        edit: |edit| {
            edit.replace("targets.toml", "name = \"researcher\"", "name = \"researcher\"\nstream_paths = [\"/x\"]")
        },
        message: "targets.toml: target `researcher`: `stream_paths` are for targets that speak mcp",
    },
    Mistake {
        name: "web pages for an agent",
        edit: |edit| {
            edit.replace(
                "targets.toml",
                "name = \"researcher\"",
                "name = \"researcher\"\nallowed_origins = [\"https://app.example.org\"]",
            )
        },
        message: "targets.toml: target `researcher`: `allowed_origins` are for targets that speak mcp",
    },
    Mistake {
        name: "a web page that is no origin",
        edit: |edit| {
            edit.replace(
                "targets.toml",
                "message_paths = [\"/mcp\"]",
                "allowed_origins = [\"https://app.example.org/\"]",
            );
        },
        message: "targets.toml:15: `https://app.example.org/` is no origin such as `https://crm.example.org`: in lower case, without path and usual port",
    },
    Mistake {
        name: "a binding that is there twice",
        edit: |edit| {
            edit.replace(
                "targets.toml",
                "message_paths = [\"/a2a\"]",
                "message_paths = [\"/a2a\"]\nbindings = [\"JSONRPC\", \"JSONRPC\"]",
            )
        },
        message: "targets.toml: target `researcher`: `bindings` names at least one binding, and none twice",
    },
    Mistake {
        name: "no binding at all",
        edit: |edit| {
            edit.replace("targets.toml", "message_paths = [\"/a2a\"]", "message_paths = [\"/a2a\"]\nbindings = []")
        },
        message: "targets.toml: target `researcher`: `bindings` names at least one binding, and none twice",
    },
    Mistake {
        name: "bindings of what is no agent",
        edit: |edit| {
            edit.replace("targets.toml", "name = \"crm-status\"", "name = \"crm-status\"\nbindings = [\"JSONRPC\"]")
        },
        message: "targets.toml: target `crm-status`: `bindings` and `rest_prefix` are for targets that speak a2a",
    },
    Mistake {
        name: "a prefix without its binding",
        edit: |edit| {
            edit.replace(
                "targets.toml",
                "message_paths = [\"/a2a\"]",
                "message_paths = [\"/a2a\"]\nrest_prefix = \"/rest\"",
            )
        },
        message: "targets.toml: target `researcher`: `rest_prefix` is for the binding HTTP+JSON, which is not among `bindings`",
    },
    Mistake {
        name: "a prefix that no request has",
        edit: |edit| {
            edit.replace(
                "targets.toml",
                "message_paths = [\"/a2a\"]",
                "message_paths = [\"/a2a\"]\nbindings = [\"HTTP+JSON\"]\nrest_prefix = \"/rest/\"",
            )
        },
        message: "targets.toml: target `researcher`: `rest_prefix` has to be a path as requests have it, without a slash at its end",
    },
    Mistake {
        name: "paths of messages without their binding",
        edit: |edit| {
            edit.replace(
                "targets.toml",
                "message_paths = [\"/a2a\"]",
                "message_paths = [\"/a2a\"]\nbindings = [\"GRPC\"]",
            )
        },
        message: "targets.toml: target `researcher`: `message_paths` are for the binding JSONRPC, which is not among `bindings`",
    },
    Mistake {
        name: "messages at a path of HTTP+JSON",
        edit: |edit| {
            edit.replace(
                "targets.toml",
                "message_paths = [\"/a2a\"]",
                "message_paths = [\"/acme/message:send\"]\nbindings = [\"JSONRPC\", \"HTTP+JSON\"]",
            )
        },
        message: "targets.toml: target `researcher`: messages are posted to `/acme/message:send`, which is a path of another binding, or of the card",
    },
    Mistake {
        name: "messages at a path of gRPC",
        edit: |edit| {
            edit.replace(
                "targets.toml",
                "message_paths = [\"/a2a\"]",
                "message_paths = [\"/a2a.v1.A2AService/SendMessage\"]\nbindings = [\"JSONRPC\", \"GRPC\"]",
            )
        },
        message: "targets.toml: target `researcher`: messages are posted to `/a2a.v1.A2AService/SendMessage`, which is a path of another binding, or of the card",
    },
    Mistake {
        name: "messages at the path of the card",
        edit: |edit| {
            edit.replace(
                "targets.toml",
                "message_paths = [\"/a2a\"]",
                "message_paths = [\"/.well-known/agent-card.json\"]",
            )
        },
        message: "targets.toml: target `researcher`: messages are posted to `/.well-known/agent-card.json`, which is a path of another binding, or of the card",
    },
    Mistake {
        name: "an origin with a path",
        edit: |edit| edit.replace("targets.toml", "\"https://crm.example.org\"", "\"https://crm.example.org/mcp\""),
        message: "targets.toml:14: `https://crm.example.org/mcp` is no origin such as `https://crm.example.org`: in lower case, without path and usual port",
    },
    Mistake {
        name: "an origin of another protocol than HTTP",
        edit: |edit| edit.replace("targets.toml", "\"https://crm.example.org\"", "\"spiffe://crm.example.org\""),
        message: "targets.toml:14: `spiffe://crm.example.org` is no origin such as `https://crm.example.org`: in lower case, without path and usual port",
    },
    Mistake {
        name: "targets that are no TOML",
        edit: |edit| edit.replace("targets.toml", "protocol = \"http\"", "protocol = http"),
        message: "targets.toml:24: string values must be quoted, expected literal string",
    },
    Mistake {
        name: "an unknown key of a target",
        edit: |edit| edit.replace("targets.toml", "classification = \"internal\"", "clasification = \"internal\""),
        message: "targets.toml:25: unknown field `clasification`, expected one of `name`, `protocol`, `classification`, `groups`, `denial`, `batches`, `unregistered_tools`, `tokens`, `chain`, `audiences`, `step_up_url`, `resource_metadata`, `origins`, `allowed_origins`, `message_paths`, `stream_paths`, `bindings`, `rest_prefix`, `match`",
    },
    Mistake {
        name: "an unknown protocol",
        edit: |edit| edit.replace("targets.toml", "protocol = \"http\"", "protocol = \"https\""),
        message: "targets.toml:24: unknown variant `https`, expected one of `mcp`, `a2a`, `http`, `grpc`, `opaque`",
    },
    Mistake {
        name: "an unknown denial profile",
        edit: |edit| edit.replace("targets.toml", "denial = \"http_403\"", "denial = \"http_401\""),
        message: "targets.toml:11: unknown variant `http_401`, expected one of `http_403`, `json_rpc_200`, `tool_error_200`",
    },
    Mistake {
        name: "an unknown condition",
        edit: |edit| edit.replace("targets.toml", "path_prefix = \"/mcp\"", "path = \"/mcp\""),
        message: "targets.toml:19: unknown field `path`, expected one of `destination_principal`, `authority`, `context_extension`, `path_prefix`, `sni`, `port`",
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
        message: "targets.toml:41: missing field `match`",
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
        name: "a server name in upper case",
        edit: |edit| edit.replace("targets.toml", "path_prefix = \"/status\"", "sni = \"CRM.example.org\""),
        message: "targets.toml: target `crm-status`: `sni` has to be a lower-case host name",
    },
    Mistake {
        name: "a server name that is an address",
        edit: |edit| edit.replace("targets.toml", "path_prefix = \"/status\"", "sni = \"10.1.2.3\""),
        message: "targets.toml: target `crm-status`: `sni` has to be a lower-case host name",
    },
    Mistake {
        name: "a port that is none",
        edit: |edit| edit.replace("targets.toml", "path_prefix = \"/status\"", "port = 65536"),
        message: "targets.toml:29: invalid value: integer `65536`, expected u16",
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
        name: "metadata that is no URL",
        edit: |edit| {
            edit.replace("targets.toml", "tokens = \"verify\"", "tokens = \"verify\"\nresource_metadata = \"crm\"")
        },
        message: "targets.toml:14: expected a URL whose path begins with /.well-known/oauth-protected-resource, without a query",
    },
    Mistake {
        name: "metadata at another path",
        edit: |edit| {
            edit.replace(
                "targets.toml",
                "tokens = \"verify\"",
                "tokens = \"verify\"\nresource_metadata = \"https://crm.example.org/mcp\"",
            )
        },
        message: "targets.toml:14: expected a URL whose path begins with /.well-known/oauth-protected-resource, without a query",
    },
    Mistake {
        name: "metadata with a query",
        edit: |edit| {
            edit.replace("targets.toml", "tokens = \"verify\"", "tokens = \"verify\"\nresource_metadata = \"https://crm.example.org/.well-known/oauth-protected-resource?x\"")
        },
        message: "targets.toml:14: expected a URL whose path begins with /.well-known/oauth-protected-resource, without a query",
    },
    Mistake {
        name: "metadata at a path that goes up",
        edit: |edit| {
            edit.replace("targets.toml", "tokens = \"verify\"", "tokens = \"verify\"\nresource_metadata = \"https://crm.example.org/.well-known/oauth-protected-resource/../x\"")
        },
        message: "targets.toml:14: expected a URL whose path begins with /.well-known/oauth-protected-resource, without a query",
    },
    Mistake {
        name: "metadata of a host that is none",
        edit: |edit| {
            edit.replace(
                "targets.toml",
                "tokens = \"verify\"",
                "tokens = \"verify\"\nresource_metadata = \"https://a b/.well-known/oauth-protected-resource\"",
            )
        },
        message: "targets.toml:14: expected a URL whose path begins with /.well-known/oauth-protected-resource, without a query",
    },
    Mistake {
        name: "metadata beside the well-known path",
        edit: |edit| {
            edit.replace("targets.toml", "tokens = \"verify\"", "tokens = \"verify\"\nresource_metadata = \"https://crm.example.org/.well-known/oauth-protected-resourcex\"")
        },
        message: "targets.toml:14: expected a URL whose path begins with /.well-known/oauth-protected-resource, without a query",
    },
    Mistake {
        name: "a login at a place that is none",
        edit: |edit| {
            edit.replace(
                "targets.toml",
                "tokens = \"verify\"",
                "tokens = \"verify\"\nstep_up_url = \"login.example.org\"",
            )
        },
        message: "targets.toml: target `crm`: `step_up_url` is an https URL without a fragment",
    },
    Mistake {
        name: "a login without TLS",
        edit: |edit| edit.replace("targets.toml", "tokens = \"verify\"", "step_up_url = \"http://login.example.org/\""),
        message: "targets.toml: target `crm`: `step_up_url` is an https URL without a fragment",
    },
    Mistake {
        name: "a login at a fragment",
        edit: |edit| {
            edit.replace("targets.toml", "tokens = \"verify\"", "step_up_url = \"https://login.example.org/#x\"")
        },
        message: "targets.toml: target `crm`: `step_up_url` is an https URL without a fragment",
    },
    Mistake {
        name: "a login for tokens that are ignored",
        edit: |edit| {
            edit.replace(
                "targets.toml",
                "tokens = \"verify\"",
                "tokens = \"ignore\"\nstep_up_url = \"https://login.example.org/\"",
            )
        },
        message: "targets.toml: target `crm`: `step_up_url` is for targets that speak mcp and whose tokens are not ignored",
    },
    Mistake {
        name: "an audience that is empty",
        edit: |edit| edit.replace("targets.toml", "tokens = \"verify\"", "audiences = [\"\"]"),
        message: "targets.toml: target `crm`: `audiences` are names of the target in tokens, and none is empty",
    },
    Mistake {
        name: "audiences of tokens that are ignored",
        edit: |edit| edit.replace("targets.toml", "tokens = \"verify\"", "tokens = \"ignore\"\naudiences = [\"crm\"]"),
        message: "targets.toml: target `crm`: `audiences` and `resource_metadata` mean nothing where `tokens` are ignored",
    },
    Mistake {
        name: "a target group that no policy and no file knows",
        edit: |edit| edit.replace("targets.toml", "groups = [\"customer-data\"]", "groups = [\"costumer-data\"]"),
        message: "targets.toml:10: target `crm` is in `ServerGroup::\"costumer-data\"`, which nothing in the bundle declares",
    },
];
