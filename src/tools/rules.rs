//! Which tools an import puts into which groups: by rules of the operator.

use serde::Deserialize;

use super::Definition;

/// A file of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// The rules. All that hold count.
    #[serde(default)]
    rule: Vec<Rule>,
}

/// One rule: a tool for which every condition holds is in the groups.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// Names of tools, of which one has to fit: `*` stands for any text, `?` for one character.
    #[serde(default)]
    tools: Vec<String>,
    /// A hint of the server's.
    #[serde(default)]
    hint: Option<Hint>,
    /// What it has to be.
    #[serde(default = "yes")]
    is: bool,
    /// `ToolGroup`s.
    groups: Vec<String>,
}

/// The hints that MCP knows (`ToolAnnotations`): what a server says of its own tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Hint {
    #[serde(rename = "readOnlyHint")]
    ReadOnly,
    #[serde(rename = "destructiveHint")]
    Destructive,
    #[serde(rename = "idempotentHint")]
    Idempotent,
    #[serde(rename = "openWorldHint")]
    OpenWorld,
}

impl Hint {
    const fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "readOnlyHint",
            Self::Destructive => "destructiveHint",
            Self::Idempotent => "idempotentHint",
            Self::OpenWorld => "openWorldHint",
        }
    }
}

const fn yes() -> bool {
    true
}

impl Rules {
    /// Reads a file of rules.
    ///
    /// # Errors
    /// What is wrong, with the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rules: Self = toml::from_str(text).map_err(|error| error.to_string().trim_end().replace('\n', " "))?;
        for (at, rule) in rules.rule.iter().enumerate() {
            let wrong = |what: &str| Err(format!("rule {}: {what}", at + 1));
            if rule.tools.is_empty() && rule.hint.is_none() {
                return wrong(
                    "it has neither `tools` nor `hint`, so it would hold for every tool; say `tools = [\"*\"]`",
                );
            }
            if rule.groups.is_empty() {
                return wrong("it names no `groups`, so it does nothing");
            }
        }
        Ok(rules)
    }

    /// The groups of a tool, in the order of the rules. A hint that the server does not give holds for no rule.
    #[must_use]
    pub fn groups(&self, tool: &Definition) -> Vec<String> {
        let mut groups: Vec<String> = Vec::new();
        for rule in &self.rule {
            let named = rule.tools.is_empty() || rule.tools.iter().any(|glob| fits(glob, &tool.name));
            let hinted = rule.hint.is_none_or(|hint| tool.hints.get(hint.name()) == Some(&rule.is));
            if named && hinted {
                groups.extend(rule.groups.iter().filter(|group| !groups.contains(group)).cloned().collect::<Vec<_>>());
            }
        }
        groups
    }
}

/// Whether a name fits a glob. Goes back to the last `*` alone, so it takes no longer than both are long together.
fn fits(glob: &str, name: &str) -> bool {
    let (glob, name): (Vec<char>, Vec<char>) = (glob.chars().collect(), name.chars().collect());
    let (mut at, mut with, mut star) = (0, 0, None);
    while let Some(c) = name.get(at) {
        match glob.get(with) {
            Some('*') => {
                star = Some((with, at));
                with += 1;
            }
            Some(g) if *g == '?' || g == c => (at, with) = (at + 1, with + 1),
            _ => match star {
                Some((from, taken)) => {
                    star = Some((from, taken + 1));
                    (at, with) = (taken + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    glob.iter().skip(with).all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(rules: &str, tool: &str) -> Vec<String> {
        let list = format!("[{tool}]");
        Rules::parse(rules).unwrap().groups(&super::super::read(list.as_bytes()).unwrap()[0])
    }

    #[test]
    fn a_tool_is_in_the_groups_of_every_rule_that_holds() {
        let rules = r#"
            [[rule]]
            tools = ["export_*", "send_?"]
            groups = ["out", "careful"]
            [[rule]]
            hint = "readOnlyHint"
            groups = ["says-it-reads"]
            [[rule]]
            tools = ["*"]
            hint = "destructiveHint"
            is = false
            groups = ["careful", "says-it-spares"]
        "#;
        assert_eq!(groups(rules, r#"{"name": "export_all"}"#), ["out", "careful"]);
        assert_eq!(
            groups(rules, r#"{"name": "send_x", "annotations": {"destructiveHint": false}}"#),
            ["out", "careful", "says-it-spares"]
        );
        assert_eq!(groups(rules, r#"{"name": "send_xy", "annotations": {"readOnlyHint": true}}"#), ["says-it-reads"]);
        // What is not said is not so, and what is no truth value is not said.
        assert!(groups(rules, r#"{"name": "x", "annotations": {"readOnlyHint": "true"}}"#).is_empty());
        assert!(groups(rules, r#"{"name": "x"}"#).is_empty());
    }

    #[test]
    fn a_rule_that_was_not_meant_is_refused() {
        for (rules, expected) in [
            ("[[rule]]\ngroups = [\"a\"]", "neither `tools` nor `hint`"),
            ("[[rule]]\ntools = [\"*\"]\ngroups = []", "names no `groups`"),
            ("[[rule]]\nhint = \"readonly\"\ngroups = [\"a\"]", "readOnlyHint"),
            ("[[rule]]\ntool = [\"*\"]\ngroups = [\"a\"]", "unknown field"),
        ] {
            let error = Rules::parse(rules).unwrap_err();
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_star_is_any_text() {
        for (glob, name) in
            [("*", ""), ("a*", "a"), ("*a", "ba"), ("a*b*c", "a-b-b-c"), ("?", "ü"), ("", ""), ("**", "x")]
        {
            assert!(fits(glob, name), "{glob} {name}");
        }
        for (glob, name) in [("", "a"), ("a", ""), ("a*", "ba"), ("a*b", "a-b-c"), ("?", ""), ("A", "a")] {
            assert!(!fits(glob, name), "{glob} {name}");
        }
        assert!(!fits(&"*a".repeat(2_000), &"a".repeat(1_999)));
    }
}
