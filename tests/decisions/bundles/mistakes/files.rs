//! The files of a bundle, and the schema as Cedar reads it.

use crate::bundles::Mistake;

pub const MISTAKES: &[Mistake] = &[
    Mistake {
        name: "unknown file",
        edit: |edit| edit.write("policies.rego", "package x"),
        message: "policies.rego: a bundle knows no such file; expected *.cedarschema, *.cedar, *.links.json, *.entities.json, *.tools.json, targets.toml, limits.toml, bundle.toml or *.md",
    },
    Mistake {
        name: "unknown file without an ending",
        edit: |edit| edit.write("Makefile", ""),
        message: "Makefile: a bundle knows no such file; expected *.cedarschema, *.cedar, *.links.json, *.entities.json, *.tools.json, targets.toml, limits.toml, bundle.toml or *.md",
    },
    Mistake {
        name: "a JSON file of no kind",
        edit: |edit| edit.write("data.json", "[]"),
        message: "data.json: a bundle knows no such file; expected *.cedarschema, *.cedar, *.links.json, *.entities.json, *.tools.json, targets.toml, limits.toml, bundle.toml or *.md",
    },
    Mistake {
        name: "a bundle.toml without a version",
        edit: |edit| edit.write("bundle.toml", ""),
        message: "bundle.toml:1: missing field `version`",
    },
    Mistake {
        name: "a bundle.toml with more than a version",
        edit: |edit| edit.write("bundle.toml", "version = \"1\"\nname = \"agents\"\n"),
        message: "bundle.toml:2: unknown field `name`, expected `version`",
    },
    Mistake {
        name: "an empty version",
        edit: |edit| edit.write("bundle.toml", "version = \"\"\n"),
        message: "bundle.toml:1: `version`: expected 1 to 64 printable ASCII characters, no spaces",
    },
    Mistake {
        name: "a version with a space",
        edit: |edit| edit.write("bundle.toml", "# called\nversion = \"22 November\"\n"),
        message: "bundle.toml:2: `version`: expected 1 to 64 printable ASCII characters, no spaces",
    },
    Mistake {
        name: "a version that is too long",
        edit: |edit| edit.write("bundle.toml", format!("version = \"{}\"\n", "1".repeat(65))),
        message: "bundle.toml:1: `version`: expected 1 to 64 printable ASCII characters, no spaces",
    },
    Mistake {
        name: "a bundle.toml that is not at the top",
        edit: |edit| edit.write("policies/bundle.toml", "version = \"1\"\n"),
        message: "policies/bundle.toml: is not at the top of the bundle, where `bundle.toml` has to be",
    },
    Mistake {
        name: "a second bundle.toml",
        edit: |edit| {
            edit.write("bundle.toml", "version = \"1\"\n");
            edit.write("policies/bundle.toml", "version = \"2\"\n");
        },
        message: "policies/bundle.toml: is not at the top of the bundle, where `bundle.toml` has to be",
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
        name: "a schema that leaves a type to another one",
        edit: |edit| edit.write("partner.cedarschema", "\nexternal entity Partner;\n"),
        message: "partner.cedarschema:2: `external` stands for what another schema declares; expected everything declared here",
    },
];
