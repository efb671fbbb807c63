//! Limits, and templates that grants may link.

use crate::bundles::{Edit, Mistake};

/// A bundle with this `limits.toml`.
fn limits(edit: &mut Edit, text: &str) {
    let always = "[[limit]]\nname = \"customer-exports\"\nquota = { units = 9, seconds = 60 }\n";
    edit.write("limits.toml", format!("{always}{text}"));
}

/// One limit of this name, with these other keys.
fn limit(edit: &mut Edit, rest: &str) {
    limits(edit, &format!("[[limit]]\nname = \"new\"\n{rest}\n"));
}

/// A template with this `@grant` and scope.
fn template(edit: &mut Edit, grant: &str, scope: &str) {
    edit.policy(&format!("@id(\"new\")\n@reason(\"r\")\n@grant(\"{grant}\")\n{scope};"));
}

const SCOPE: &str = "permit (principal == ?principal, action in Action::\"tools/call\", resource == ?resource)";

pub const MISTAKES: &[Mistake] = &[
    Mistake {
        name: "limits that are no TOML",
        edit: |edit| limits(edit, "[[limit]\n"),
        message: "limits.toml:4: ‹any›",
    },
    Mistake {
        name: "unknown key of a limit",
        edit: |edit| limit(edit, "rates = { units = 1 }"),
        message: "limits.toml:6: unknown field `rates`, expected one of `name`, `per`, `rate`, `quota`, `concurrent`, `cost`",
    },
    Mistake {
        name: "limits in two files",
        edit: |edit| edit.write("more/limits.toml", ""),
        message: "limits.toml: there is `more/limits.toml` as well; expected one in a bundle",
    },
    Mistake {
        name: "limit that measures nothing",
        edit: |edit| limit(edit, "per = [\"agent\"]"),
        message: "limits.toml:5: limit `new`: expected one of `rate`, `quota` and `concurrent`",
    },
    Mistake {
        name: "limit that measures two things",
        edit: |edit| limit(edit, "rate = { units = 1 }\nquota = { units = 1, seconds = 1 }"),
        message: "limits.toml:5: limit `new`: expected one of `rate`, `quota` and `concurrent`",
    },
    Mistake {
        name: "limit that is there twice",
        edit: |edit| limits(edit, "[[limit]]\nname = \"customer-exports\"\nrate = { units = 1 }\n"),
        message: "limits.toml:2: limit `customer-exports`: is there twice",
    },
    Mistake {
        name: "limit with a name of two words",
        edit: |edit| limits(edit, "[[limit]]\nname = \"two words\"\nrate = { units = 1 }\n"),
        message: "limits.toml:5: limit `two words`: a name is 1 to 64 of A-Z a-z 0-9 - _ .",
    },
    Mistake {
        name: "limit per something unknown",
        edit: |edit| limit(edit, "per = [\"customer\"]\nrate = { units = 1 }"),
        message: "limits.toml:6: unknown variant `customer`, expected one of `agent`, `user`, `server`, `tool`, `task`",
    },
    Mistake {
        name: "limit per the same twice",
        edit: |edit| limit(edit, "per = [\"agent\", \"agent\"]\nrate = { units = 1 }"),
        message: "limits.toml:5: limit `new`: `per` names something twice",
    },
    Mistake {
        name: "rate of nothing",
        edit: |edit| limit(edit, "rate = { units = 0 }"),
        message: "limits.toml:5: limit `new`: `rate.units` is from 1 to 1000000000000",
    },
    Mistake {
        name: "burst of nothing",
        edit: |edit| limit(edit, "rate = { units = 1, burst = 0 }"),
        message: "limits.toml:5: limit `new`: `rate.burst` is from 1 to 1000000000000",
    },
    Mistake {
        name: "rate faster than its clock",
        edit: |edit| limit(edit, "rate = { units = 1000001 }"),
        message: "limits.toml:5: limit `new`: `rate`: at most a million units in a second",
    },
    Mistake {
        name: "burst that takes years to come back",
        edit: |edit| limit(edit, "rate = { units = 1, seconds = 86400, burst = 400 }"),
        message: "limits.toml:5: limit `new`: `rate`: the whole `burst` has to come back within a year",
    },
    Mistake {
        name: "quota of no time",
        edit: |edit| limit(edit, "quota = { units = 1, seconds = 0 }"),
        message: "limits.toml:5: limit `new`: `quota.seconds` is from 1 to 31622400",
    },
    Mistake {
        name: "cost of calls at one time",
        edit: |edit| limit(edit, "concurrent = { calls = 1, seconds = 9 }\ncost = { argument = \"/n\", max = 1 }"),
        message: "limits.toml:5: limit `new`: `cost` is of a `rate` or a `quota`: a call is one call",
    },
    Mistake {
        name: "cost by no pointer",
        edit: |edit| limit(edit, "rate = { units = 5 }\ncost = { argument = \"n\", max = 5 }"),
        message: "limits.toml:5: limit `new`: `cost.argument` is a JSON pointer such as \"/limit\"",
    },
    Mistake {
        name: "cost that no call could have",
        edit: |edit| limit(edit, "rate = { units = 5 }\ncost = { argument = \"/n\", max = 6 }"),
        message: "limits.toml:5: limit `new`: `cost.max` is from 1 to 5, what there is at one time",
    },
    Mistake {
        name: "cost by default above the highest",
        edit: |edit| limit(edit, "rate = { units = 5 }\ncost = { argument = \"/n\", max = 2, default = 3 }"),
        message: "limits.toml:5: limit `new`: `cost.default` (3) is above `cost.max` (2)",
    },
    Mistake {
        name: "limit that is not there",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\n@limit(\"exports\")\npermit (principal, action, resource);")
        },
        message: "policies/new.cedar:2: policy `new`: `@limit`: limits.toml has no limit `exports`",
    },
    Mistake {
        name: "limit of a forbid",
        edit: |edit| {
            edit.policy(
                "@id(\"new\")\n@reason(\"r\")\n@limit(\"customer-exports\")\nforbid (principal, action, resource);",
            )
        },
        message: "policies/new.cedar:2: policy `new`: `@limit` is of a permit: it counts only while the limit holds",
    },
    Mistake {
        name: "limit that a policy names twice",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\n@limit(\"customer-exports customer-exports\")\npermit (principal, action, resource);")
        },
        message: "policies/new.cedar:2: policy `new`: `@limit` names a limit twice",
    },
    Mistake {
        name: "limits that a policy needs, removed",
        edit: |edit| edit.remove("limits.toml"),
        message: "policies/agents.cedar:59: policy `exporters-export-to-reports`: `@limit`: limits.toml has no limit `customer-exports`",
    },
    Mistake {
        name: "grants of a forbid",
        edit: |edit| template(edit, "seconds=9", "forbid (principal == ?principal, action, resource)"),
        message: "policies/new.cedar:2: policy `new`: `@grant`: a grant allows, so its template is a permit",
    },
    Mistake {
        name: "grants to anybody",
        edit: |edit| {
            template(edit, "seconds=9", "permit (principal, action in Action::\"tools/call\", resource == ?resource)")
        },
        message: "policies/new.cedar:2: policy `new`: `@grant`: a grant is one agent's: expected `principal == ?principal`",
    },
    Mistake {
        name: "grants to a group",
        edit: |edit| template(edit, "seconds=9", "permit (principal in ?principal, action, resource)"),
        message: "policies/new.cedar:2: policy `new`: `@grant`: a grant is one agent's: expected `principal == ?principal`",
    },
    Mistake {
        name: "grants for ever",
        edit: |edit| template(edit, "calls=9", SCOPE),
        message: "policies/new.cedar:2: policy `new`: `@grant`: `seconds=` says how long a grant may last",
    },
    Mistake {
        name: "grants for too long",
        edit: |edit| template(edit, "seconds=2678401", SCOPE),
        message: "policies/new.cedar:2: policy `new`: `@grant`: expected `seconds=` (1 to 2678400)‹any›",
    },
    Mistake {
        name: "grants of no call",
        edit: |edit| template(edit, "seconds=9 calls=0", SCOPE),
        message: "policies/new.cedar:2: policy `new`: `@grant`: `calls` is from 1 to 1000000",
    },
    Mistake {
        name: "terms of grants that say something unknown",
        edit: |edit| template(edit, "seconds=9 tasks", SCOPE),
        message: "policies/new.cedar:2: policy `new`: `@grant`: expected `seconds=`‹any›",
    },
    Mistake {
        name: "terms of grants that say something twice",
        edit: |edit| template(edit, "seconds=9 task task", SCOPE),
        message: "policies/new.cedar:2: policy `new`: `@grant`: `task` is there twice",
    },
    Mistake {
        name: "template for grants that is not there",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\npermit (principal, action == Action::\"control:grant\", resource == Template::\"granted\");")
        },
        message: "policies/new.cedar:2: policy `new` names `Template::\"granted\"`, which is no template of this bundle that has `@grant`",
    },
    Mistake {
        name: "another mesh",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\npermit (principal, action == Action::\"control:hold\", resource == Mesh::\"all\");")
        },
        message: "policies/new.cedar:2: policy `new` names `Mesh::\"all\"`, which there is none of: expected `Mesh::\"mesh\"`",
    },
    Mistake {
        name: "a control action outside of its group",
        edit: |edit| {
            edit.replace(
                "palisade.cedarschema",
                "action \"control:complete\" in [\"control\"]",
                "action \"control:complete\"",
            )
        },
        message: "palisade.cedarschema:‹any›: action `control:complete`: it has to be in `Action::\"control\"`, or policies about all control calls would miss it",
    },
    Mistake {
        name: "a hold of fewer things",
        edit: |edit| edit.replace("palisade.cedarschema", "Task, Server, Tool],\n", "Task, Server],\n"),
        message: "palisade.cedarschema:‹any›: action `control:hold`: it has to apply to principal Agent and resource ‹any›",
    },
];
