//! Templates and what links them.

use crate::bundles::{Edit, Mistake};

/// A bundle with a template of both slots and a file of links.
fn linked(edit: &mut Edit, links: &str) {
    edit.policy(
        "@id(\"reads\")\n@reason(\"r\")\n\
         permit (principal in ?principal, action == Action::\"crm/get_customer\", resource == ?resource);",
    );
    edit.write("new.links.json", links);
}

/// A link of that template.
fn link(id: &str, principal: &str, resource: &str) -> String {
    format!(
        "{{\"templateId\": \"reads\", \"newId\": \"{id}\",\n \"values\": {{\"?principal\": {principal}, \"?resource\": {resource}}}}}"
    )
}

const GROUP: &str = "{\"type\": \"AgentGroup\", \"id\": \"read-only\"}";
const TOOL: &str = "{\"type\": \"Tool\", \"id\": \"crm/get_customer\"}";

pub const MISTAKES: &[Mistake] = &[
    Mistake {
        name: "links that are cut off",
        edit: |edit| linked(edit, &format!("[\n{}", link("l", GROUP, TOOL))),
        message: "new.links.json:3: EOF while parsing a list‹any›",
    },
    Mistake {
        name: "links that are no array",
        edit: |edit| linked(edit, &link("l", GROUP, TOOL)),
        message: "new.links.json:1: invalid type: map, expected a sequence‹any›",
    },
    Mistake {
        name: "a link with an unknown member",
        edit: |edit| linked(edit, "[{\"templateId\": \"reads\", \"newId\": \"l\", \"valeus\": {}}]"),
        message: "new.links.json:1: unknown field `valeus`, expected one of `templateId`, `newId`, `values`‹any›",
    },
    Mistake {
        name: "a link with a member that is there twice",
        edit: |edit| linked(edit, "[{\"templateId\": \"reads\", \"newId\": \"l\", \"newId\": \"m\", \"values\": {}}]"),
        message: "new.links.json:1: duplicate field `newId`‹any›",
    },
    Mistake {
        name: "a link with a slot that is there twice",
        edit: |edit| {
            linked(
                edit,
                &format!(
                    "[{{\"templateId\": \"reads\", \"newId\": \"l\", \"values\": {{\"?principal\": {GROUP}, \"?principal\": {GROUP}}}}}]"
                ),
            );
        },
        message: "new.links.json:1: duplicate field `?principal`‹any›",
    },
    Mistake {
        name: "a link without a value for a slot",
        edit: |edit| {
            linked(
                edit,
                &format!(
                    "[\n{{\"templateId\": \"reads\", \"newId\": \"l\", \"values\": {{\"?principal\": {GROUP}}}}}]"
                ),
            );
        },
        message: "new.links.json:2: link `l`: template `reads` needs a value for `?resource`",
    },
    Mistake {
        name: "a link with a slot that there is none of",
        edit: |edit| {
            linked(
                edit,
                &format!(
                    "[{{\"templateId\": \"reads\", \"newId\": \"l\", \"values\": {{\"?action\": {GROUP}, \"?principal\": {GROUP}}}}}]"
                ),
            );
        },
        message: "new.links.json:1: unknown field `?action`, expected `?principal` or `?resource`‹any›",
    },
    Mistake {
        name: "a link that fills a slot which its template lacks",
        edit: |edit| {
            edit.policy("@id(\"reads\")\n@reason(\"r\")\npermit (principal == ?principal, action, resource);");
            edit.write("new.links.json", format!("[{}]", link("l", GROUP, TOOL)));
        },
        message: "new.links.json:1: link `l`: template `reads` has no slot `?resource`",
    },
    Mistake {
        name: "a link of no template",
        edit: |edit| edit.write("new.links.json", format!("[{}]", link("l", GROUP, TOOL))),
        message: "new.links.json:1: link `l`: there is no template `reads`",
    },
    Mistake {
        name: "a link of a policy without slots",
        edit: |edit| {
            edit.policy("@id(\"reads\")\n@reason(\"r\")\npermit (principal, action, resource);");
            edit.write("new.links.json", format!("[{}]", link("l", GROUP, TOOL)));
        },
        message: "new.links.json:1: link `l`: `reads` is a policy without slots, not a template",
    },
    Mistake {
        name: "a link without an id",
        edit: |edit| linked(edit, &format!("[{}]", link("", GROUP, TOOL))),
        message: "new.links.json:1: link ``: `newId`: expected an id of 1 to 256 bytes, not blank and without control characters",
    },
    Mistake {
        name: "a link with a line break in its id",
        edit: |edit| linked(edit, &format!("[\n{}]", link("l\\nverdict PERMIT", GROUP, TOOL))),
        message: "new.links.json:2: link `l\\nverdict PERMIT`: `newId`: expected an id of 1 to 256 bytes, not blank and without control characters",
    },
    Mistake {
        name: "a link with a text for an entity",
        edit: |edit| linked(edit, &format!("[{}]", link("l", "\"Agent::x\"", TOOL))),
        message: "new.links.json:2: invalid type: string \"Agent::x\", expected an entity, `{\"type\": …, \"id\": …}`‹any›",
    },
    Mistake {
        name: "a link with the id of a policy",
        edit: |edit| linked(edit, &format!("[\n{}]", link("only-agents-namespace", GROUP, TOOL))),
        message: "new.links.json:2: policy id `only-agents-namespace` is there twice, first in policies/guardrails.cedar:4",
    },
    Mistake {
        name: "a link with the id of its template",
        edit: |edit| linked(edit, &format!("[{}]", link("reads", GROUP, TOOL))),
        message: "new.links.json:1: policy id `reads` is there twice, first in policies/new.cedar:2",
    },
    Mistake {
        name: "a link with the id of another link",
        edit: |edit| linked(edit, &format!("[{},\n\n{}]", link("l", GROUP, TOOL), link("l", GROUP, TOOL))),
        message: "new.links.json:4: policy id `l` is there twice, first in new.links.json:1",
    },
    Mistake {
        name: "a link to a group that nobody declares",
        edit: |edit| {
            linked(edit, &format!("[{}]", link("l", "{\"type\": \"AgentGroup\", \"id\": \"reed-only\"}", TOOL)));
        },
        message: "new.links.json:1: policy `l` names `AgentGroup::\"reed-only\"`, which nothing in the bundle declares",
    },
    Mistake {
        name: "a link to what an enumerated type does not list",
        edit: |edit| {
            edit.write("tier.cedarschema", "entity Tier enum [\"gold\", \"silver\"];\n");
            edit.replace("palisade.cedarschema", "entity Agent in [", "entity Agent in [Tier, ");
            edit.policy("@id(\"bans\")\n@reason(\"r\")\nforbid (principal in ?principal, action, resource);");
            let link = |id: &str, tier: &str| {
                format!(
                    "{{\"templateId\": \"bans\", \"newId\": \"{id}\", \"values\": {{\"?principal\": {{\"type\": \"Tier\", \"id\": \"{tier}\"}}}}}}"
                )
            };
            edit.write("new.links.json", format!("[{},\n{}]", link("l", "gold"), link("m", "glod")));
        },
        message: "new.links.json:2: policy `m` names `Tier::\"glod\"`, which nothing in the bundle declares",
    },
    Mistake {
        name: "a link whose type is written with a blank",
        edit: |edit| {
            linked(edit, &format!("[{}]", link("l", "{\"type\": \" AgentGroup\", \"id\": \"read-only\"}", TOOL)))
        },
        message: "new.links.json:1: link `l`: ` AgentGroup` is no entity type",
    },
    Mistake {
        name: "a link to an agent that can be none",
        edit: |edit| linked(edit, &format!("[{}]", link("l", "{\"type\": \"Agent\", \"id\": \"bot\"}", TOOL))),
        message: "new.links.json:1: policy `l` names `Agent::\"bot\"`, which is no SPIFFE ID: ‹any›",
    },
    Mistake {
        name: "a link to a type that the schema lacks",
        edit: |edit| linked(edit, &format!("[{}]", link("l", "{\"type\": \"Robot\", \"id\": \"r\"}", TOOL))),
        message: "new.links.json:1: link `l` of `reads`: ‹any›Robot‹any›",
    },
    Mistake {
        name: "a link to a type that is none",
        edit: |edit| linked(edit, &format!("[{}]", link("l", "{\"type\": \"a b\", \"id\": \"r\"}", TOOL))),
        message: "new.links.json:1: link `l`: `a b` is no entity type",
    },
    Mistake {
        name: "a link with which the template can never apply",
        edit: |edit| {
            linked(
                edit,
                &format!(
                    "[{},\n{}]",
                    link("l", GROUP, TOOL),
                    link("m", GROUP, "{\"type\": \"Server\", \"id\": \"crm\"}")
                ),
            );
        },
        message: "new.links.json:3: link `m` of `reads`: ‹any›",
    },
    Mistake {
        name: "a template with a type error",
        edit: |edit| {
            edit.policy(
                "@id(\"reads\")\n@reason(\"r\")\npermit (principal == ?principal, action, resource) when { principal.nobody };",
            );
        },
        message: "policies/new.cedar:4: ‹any›",
    },
    Mistake {
        name: "a slot in a condition",
        edit: |edit| {
            edit.policy(
                "@id(\"reads\")\n@reason(\"r\")\npermit (principal, action, resource) when { principal in ?principal };",
            );
        },
        message: "policies/new.cedar:4: ‹any›",
    },
];
