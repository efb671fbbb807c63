//! Tools.

use crate::bundles::Mistake;

pub const MISTAKES: &[Mistake] = &[
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
        message: "crm.tools.json:3: expected value",
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
        message: "crm.tools.json:4: unknown field `readonly`, expected one of `name`, `description`, `classification`, `read_only`, `destructive`, `groups`, `digest`, `members`, `input_schema`, `unseen`, `loggable`",
    },
    Mistake {
        name: "loggable, and no argument",
        edit: |edit| edit.replace("crm.tools.json", "\"/limit\"", "\"/limits\""),
        message: "crm.tools.json:5: tool `query_customers`: `loggable`: `/limits` is no argument of the tool; expected a name of one behind `/`",
    },
    Mistake {
        name: "loggable, and no pointer",
        edit: |edit| edit.replace("crm.tools.json", "\"/limit\"", "\"limit\""),
        message: "crm.tools.json:5: tool `query_customers`: `loggable`: `limit` is no argument of the tool; expected a name of one behind `/`",
    },
    Mistake {
        name: "loggable, and within an argument",
        edit: |edit| edit.replace("crm.tools.json", "\"/limit\"", "\"/limit/0\""),
        message: "crm.tools.json:5: tool `query_customers`: `loggable`: `/limit/0` is no argument of the tool; expected a name of one behind `/`",
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
        message: "crm.tools.json:4: duplicate field `read_only`",
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
        message: "crm.tools.json:4: invalid type: string \"yes\", expected a boolean",
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
        message: "crm.tools.json:4: missing field `name`",
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
        message: "crm.tools.json:3: missing field `server`",
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
        message: "crm.tools.json: server `crn` is no target: targets.toml needs a `[[target]]` of that name",
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
        message: "crm.tools.json:43: tool `export_customers` is in `ToolGroup::\"exfiltratoin\"`, which nothing in the bundle declares",
    },
];
